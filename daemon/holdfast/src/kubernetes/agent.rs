//! Whether an agent of k3s works: it has no API server of its own, so its kubelet is asked.
//!
//! In: where the kubelet answers. Out: that it says that it is healthy, or why that cannot be said. It guarantees an answer within seconds.

use super::KubernetesError;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Where a kubelet tells its health, unless it is told otherwise (`--healthz-bind-address`, `--healthz-port`).
pub const KUBELET: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10248);
/// Longest wait for its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes that are read of an answer: its first line counts.
const MOST: usize = 256;

/// Asks the kubelet for its health.
///
/// # Errors
/// It does not answer, or says that it is not healthy.
pub async fn healthy(kubelet: SocketAddr) -> Result<(), KubernetesError> {
    let reason = match timeout(PATIENCE, first_line(kubelet)).await {
        Ok(Ok(line)) if line.starts_with("HTTP/1.") && line.contains(" 200") => return Ok(()),
        Ok(Ok(line)) => format!("it answers {line:?}"),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
    };
    Err(KubernetesError::AgentStarting { kubelet, reason })
}

async fn first_line(kubelet: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(kubelet).await?;
    stream
        .write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.take(MOST as u64).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn asked(answer: &'static str) -> Result<(), KubernetesError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let kubelet = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 64];
            let length = stream.read(&mut question).await.unwrap();
            assert!(question[..length].starts_with(b"GET /healthz "));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(healthy(address), kubelet).0
    }

    #[tokio::test]
    async fn only_a_kubelet_that_says_so_is_healthy() {
        assert_eq!(asked("HTTP/1.0 200 OK\r\n\r\nok").await, Ok(()));
        let sick = asked("HTTP/1.0 500 Internal Server Error\r\n\r\n")
            .await
            .unwrap_err();
        assert!(sick.to_string().contains("500 Internal Server Error"), "{sick}");
    }

    #[tokio::test]
    async fn a_kubelet_that_does_not_listen_is_starting() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = healthy(address).await.unwrap_err();
        assert_eq!(error.problem().code, crate::codes::KUBERNETES_STARTING);
    }
}
