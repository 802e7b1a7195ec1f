import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.Map;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Java's own TLS (JSSE) as client over TCP of `python -m interop tls`; run from its source. */
public class JavaClient {
    private static final int UNSUPPORTED = 127;

    public static void main(String[] arguments) throws Exception {
        Map<String, String> environment = System.getenv();
        String testcase = environment.get("TESTCASE");
        boolean twice = "resumption".equals(testcase);
        if (!"client".equals(environment.get("ROLE")) || !(twice || "handshake".equals(testcase))) {
            System.exit(UNSUPPORTED);
        }
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null);
        try (InputStream file = Files.newInputStream(Path.of(environment.get("CERTS"), "ca.pem"))) {
            trusted.setCertificateEntry(
                    "ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        URI url = URI.create(environment.get("REQUESTS").split(" ")[0]);
        for (int i = 0; i < (twice ? 2 : 1); i++) {
            // Each client has connections of its own; sessions belong to the context.
            HttpClient client = HttpClient.newBuilder().sslContext(context).build();
            HttpResponse<Void> response = client.send(
                    HttpRequest.newBuilder(url).build(), HttpResponse.BodyHandlers.discarding());
            if (response.statusCode() != 200) {
                throw new IOException("status " + response.statusCode());
            }
        }
    }
}
