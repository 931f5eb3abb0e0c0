//! A release of k3s on a web server of this machine, for tests: files with true digests, and answers that are cut where that is wanted.

use crate::files;
use std::{
    collections::{HashMap, HashSet},
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
};

/// The version of the release.
pub const VERSION: &str = "v1.36.3+k3s1";

/// Files by path.
pub struct Release(pub HashMap<String, Vec<u8>>);

impl Release {
    /// One whose programs and archives have this content for both architectures, named in checksum files.
    pub fn of(program: &[u8], archive: &[u8]) -> Self {
        let mut release = Self(HashMap::new());
        let directory = tempfile::tempdir().unwrap();
        let digest = |content: &[u8]| {
            let path = directory.path().join("content");
            files::replace(&path, content).unwrap();
            files::sha256(&path).unwrap()
        };
        for (architecture, binary) in super::ARCHITECTURES {
            let name = format!("k3s-airgap-images-{architecture}.tar.zst");
            let sums = format!("{}  {binary}\n{}  {name}\n", digest(program), digest(archive));
            release.add(&format!("sha256sum-{architecture}.txt"), sums.as_bytes());
            release.add(binary, program);
            release.add(&name, archive);
        }
        release
    }

    /// Adds or replaces a file.
    pub fn add(&mut self, name: &str, content: &[u8]) {
        let path = format!("/{}/{name}", VERSION.replace('+', "%2B"));
        self.0.insert(path, content.to_vec());
    }

    /// Serves it for as long as the tests run. With `cut`, the first answer with each file's content ends in its middle.
    pub fn serve(self, cut: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut whole = HashSet::new();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap())
                    .lines()
                    .map(Result::unwrap);
                let request = lines.next().unwrap();
                let mut words = request.split(' ');
                let (method, path) = (words.next().unwrap(), words.next().unwrap());
                let from = lines
                    .take_while(|line| !line.is_empty())
                    .filter_map(|line| {
                        let range = line
                            .to_ascii_lowercase()
                            .strip_prefix("range: bytes=")?
                            .to_owned();
                        range.trim_end_matches('-').parse::<usize>().ok()
                    })
                    .last();
                let Some(content) = self.0.get(path) else {
                    stream
                        .write_all(
                            b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                        )
                        .unwrap();
                    continue;
                };
                let body = &content[from.unwrap_or(0)..];
                let status = from.map_or_else(
                    || "200 OK".to_owned(),
                    |from| {
                        let (last, all) = (content.len() - 1, content.len());
                        format!("206 Partial Content\r\ncontent-range: bytes {from}-{last}/{all}")
                    },
                );
                let head = format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let sent = if method == "HEAD" {
                    &[][..]
                } else if cut && !path.contains("sha256sum") && whole.insert(path.to_owned()) {
                    &body[..body.len() / 2]
                } else {
                    body
                };
                stream.write_all(&[head.as_bytes(), sent].concat()).unwrap();
            }
        });
        url
    }
}
