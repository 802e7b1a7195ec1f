//! A client on s2n-quic and s2n-tls: it shakes hands.

use std::{error::Error, path::Path};

use rust_clients::{authority, case, server, TICKET_WAIT};
use s2n_quic::{client::Connect, Client};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    case(&["handshake"]);
    let client = Client::builder()
        .with_tls(Path::new(&authority()))?
        .with_io("127.0.0.1:0")?
        .start()?;
    let connect = Connect::new(server()).with_server_name("localhost");
    let connection = client.connect(connect).await?;
    tokio::time::sleep(TICKET_WAIT).await;
    connection.close(0x100u32.into());
    tokio::time::sleep(TICKET_WAIT).await;
    Ok(())
}
