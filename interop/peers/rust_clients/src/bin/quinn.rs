//! A client on quinn and rustls: it shakes hands, once or with the session of a first connection.

use std::{error::Error, fs::File, io::BufReader, sync::Arc};

use quinn::{crypto::rustls::QuicClientConfig, ClientConfig, Connection, Endpoint};
use rust_clients::{authority, case, server, TICKET_WAIT};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn configuration() -> Outcome<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut BufReader::new(File::open(authority())?)) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    tls.enable_early_data = true;
    Ok(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)))
}

async fn end(connection: Connection) {
    tokio::time::sleep(TICKET_WAIT).await;
    connection.close(0x100u32.into(), b"");
    connection.closed().await;
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let case = case(&["handshake", "resumption", "zerortt"]);
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse()?)?;
    endpoint.set_default_client_config(configuration()?);
    let connect = || endpoint.connect(server(), "localhost");
    end(connect()?.await?).await;
    match case.as_str() {
        "resumption" => end(connect()?.await?).await,
        "zerortt" => {
            let (connection, accepted) = connect()?.into_0rtt().map_err(|_| "no early data")?;
            // The type of a control stream, and empty SETTINGS; it may not end before the connection.
            let mut control = connection.open_uni().await?;
            control.write_all(&[0, 4, 0]).await?;
            if !accepted.await {
                return Err("early data was not accepted".into());
            }
            end(connection).await;
        }
        _ => (),
    }
    endpoint.wait_idle().await;
    Ok(())
}
