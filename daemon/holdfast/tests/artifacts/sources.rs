//! Which source is asked, and what becomes of what it says.

use crate::support::{Box, Manner, Server, artifact, content};
use anyhow::Result;
use holdfast_protocol::{Digest, codes as protocol_codes};
use std::{
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SIZE: usize = 1 << 20;

#[tokio::test]
async fn what_the_image_of_the_box_holds_is_used_in_place_and_costs_no_network() -> Result<()> {
    let it = Box::new()?;
    let bytes = content(SIZE);
    let hub = Server::hub(&it.authority, &bytes, &[Manner::Good]).await?;
    let fetcher = it.fetcher(Some(&hub))?;
    let baked = it.settings.artifacts.baked.join("sha256");
    std::fs::create_dir_all(&baked)?;
    let file = baked.join(Digest::of(&bytes).hex());
    std::fs::write(&file, &bytes)?;
    fetcher.fetch_artifacts(&[artifact(&bytes, &[])]).await.unwrap();
    let stored = fetcher.blobs.path(Digest::of(&bytes));
    assert_eq!(std::fs::metadata(&stored)?.ino(), std::fs::metadata(&file)?.ino());
    assert!(hub.offsets().is_empty());

    // A damaged one is not used, and not touched.
    let other = content(SIZE + 1);
    let hub = Server::hub(&it.authority, &other, &[Manner::Good]).await?;
    let fetcher = it.fetcher(Some(&hub))?;
    let file = baked.join(Digest::of(&other).hex());
    std::fs::write(&file, &bytes)?;
    fetcher.fetch_artifacts(&[artifact(&other, &[])]).await.unwrap();
    assert_eq!(fetcher.blobs.read(Digest::of(&other))?, other);
    assert_eq!(std::fs::read(&file)?, bytes);
    Ok(())
}

#[tokio::test]
async fn the_hub_is_asked_first_and_the_named_sources_after_it_in_their_order() -> Result<()> {
    let it = Box::new()?;
    let bytes = content(SIZE);
    let hub = Server::hub(&it.authority, &bytes, &[Manner::Status(404)]).await?;
    let first = Server::start(&it.authority, &bytes, &[Manner::Status(503)]).await?;
    let second = Server::start(&it.authority, &bytes, &[Manner::Good]).await?;
    let third = Server::start(&it.authority, &bytes, &[Manner::Good]).await?;
    let fetcher = it.fetcher(Some(&hub))?;
    let thing = artifact(&bytes, &[first.url(), second.url(), third.url()]);
    fetcher
        .fetch_artifacts(std::slice::from_ref(&thing))
        .await
        .unwrap();
    assert_eq!(fetcher.blobs.read(thing.digest)?, bytes);
    let path = format!("/v1/blobs/{}", thing.digest);
    assert_eq!(*hub.asked.borrow(), [(path, 0, None)]);
    assert_eq!((first.offsets(), second.offsets()), (vec![0], vec![0]));
    assert!(third.offsets().is_empty());

    // What is here is not asked for again.
    fetcher.fetch_artifacts(&[thing]).await.unwrap();
    assert_eq!(hub.offsets().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_cut_at_any_place_costs_no_byte_twice() -> Result<()> {
    for cut in [0, 1, 4_095, 65_536, 300_001, SIZE - 1] {
        let it = Box::new()?;
        let bytes = content(SIZE);
        let first = Server::start(&it.authority, &bytes, &[Manner::Cut(cut), Manner::Status(503)]).await?;
        let second = Server::start(&it.authority, &bytes, &[Manner::Good]).await?;
        let fetcher = it.fetcher(None)?;
        let thing = artifact(&bytes, &[first.url(), second.url()]);
        fetcher
            .fetch_artifacts(std::slice::from_ref(&thing))
            .await
            .unwrap();
        assert_eq!(second.offsets(), [cut as u64], "cut at {cut}");
        assert_eq!(fetcher.blobs.read(thing.digest)?, bytes, "cut at {cut}");
        assert!(it.partial_files().is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn a_source_that_was_cut_off_after_much_is_asked_on_at_once() -> Result<()> {
    let it = Box::new()?;
    let bytes = content(SIZE);
    let manners = [Manner::Cut(200_000), Manner::Cut(300_000), Manner::Good];
    let server = Server::start(&it.authority, &bytes, &manners).await?;
    let fetcher = it.fetcher(None)?;
    let thing = artifact(&bytes, &[server.url()]);
    fetcher
        .fetch_artifacts(std::slice::from_ref(&thing))
        .await
        .unwrap();
    assert_eq!(server.offsets(), [0, 200_000, 500_000]);
    assert_eq!(fetcher.blobs.read(thing.digest)?, bytes);
    Ok(())
}

#[tokio::test]
async fn a_source_without_ranges_begins_anew_and_its_cuts_do_not_go_round_for_ever() -> Result<()> {
    let it = Box::new()?;
    let bytes = content(SIZE);
    let cuts = Server::start(&it.authority, &bytes, &[Manner::CutWhole(400_000)]).await?;
    let whole = Server::start(&it.authority, &bytes, &[Manner::Whole]).await?;
    let fetcher = it.fetcher(None)?;
    let thing = artifact(&bytes, &[cuts.url()]);
    let failure = fetcher
        .fetch_artifacts(std::slice::from_ref(&thing))
        .await
        .unwrap_err();
    assert!(failure.retryable);
    assert_eq!(cuts.offsets(), [0, 400_000]);
    let thing = artifact(&bytes, &[whole.url()]);
    fetcher
        .fetch_artifacts(std::slice::from_ref(&thing))
        .await
        .unwrap();
    assert_eq!(whole.offsets(), [400_000]);
    assert_eq!(fetcher.blobs.read(thing.digest)?, bytes);

    let it = Box::new()?;
    let lengthless = Server::start(&it.authority, &bytes, &[Manner::Lengthless]).await?;
    let fetcher = it.fetcher(None)?;
    fetcher
        .fetch_artifacts(&[artifact(&bytes, &[lengthless.url()])])
        .await
        .unwrap();
    Ok(())
}

#[tokio::test]
async fn a_source_with_another_content_is_passed_over_and_remembered() -> Result<()> {
    let it = Box::new()?;
    let bytes = content(SIZE);
    let liar = Server::start(&it.authority, &bytes, &[Manner::Lies]).await?;
    let longer = Server::start(&it.authority, &bytes, &[Manner::Longer]).await?;
    let away = Server::start(&it.authority, &bytes, &[Manner::Status(500), Manner::Good]).await?;
    let fetcher = it.fetcher(None)?;
    let thing = artifact(&bytes, &[liar.url(), longer.url(), away.url()]);
    let failure = fetcher
        .fetch_artifacts(std::slice::from_ref(&thing))
        .await
        .unwrap_err();
    let message = failure.problem.message;
    assert!(failure.retryable, "one of them may come back: {message}");
    for said in [
        "the hub: cannot connect",
        "has the content of sha256:",
        "1048577 bytes",
        "500",
    ] {
        assert!(message.contains(said), "{said}: {message}");
    }
    fetcher
        .fetch_artifacts(std::slice::from_ref(&thing))
        .await
        .unwrap();
    assert_eq!((liar.offsets().len(), longer.offsets().len()), (1, 1));
    assert_eq!(fetcher.blobs.read(thing.digest)?, bytes);
    Ok(())
}

#[tokio::test]
async fn content_that_is_wrong_everywhere_fails_for_good() -> Result<()> {
    let it = Box::new()?;
    let bytes = content(1_000);
    let hub = Server::hub(&it.authority, &bytes, &[Manner::Lies]).await?;
    let other = Server::start(&it.authority, &bytes, &[Manner::Lies]).await?;
    let fetcher = it.fetcher(Some(&hub))?;
    let failure = fetcher
        .fetch_artifacts(&[artifact(&bytes, &[other.url()])])
        .await
        .unwrap_err();
    assert_eq!(failure.problem.code, protocol_codes::BLOB_DIGEST_MISMATCH);
    assert!(!failure.retryable);
    assert!(it.partial_files().is_empty());
    assert!(!fetcher.blobs.contains(Digest::of(&bytes), 1_000));
    Ok(())
}

#[tokio::test]
async fn bytes_of_a_liar_do_not_spoil_those_of_an_honest_source() -> Result<()> {
    let it = Box::new()?;
    let bytes = content(SIZE);
    // It lies, and is cut off each time before anyone can tell.
    let liar = Server::start(&it.authority, &bytes, &[Manner::LiesAndCuts(1_000)]).await?;
    let honest = Server::start(&it.authority, &bytes, &[Manner::Good]).await?;
    let fetcher = it.fetcher(None)?;
    let thing = artifact(&bytes, &[liar.url(), honest.url()]);
    fetcher
        .fetch_artifacts(std::slice::from_ref(&thing))
        .await
        .unwrap();
    assert_eq!(
        honest.offsets(),
        [1_000, 0],
        "together first, then the whole from one"
    );
    assert_eq!(fetcher.blobs.read(thing.digest)?, bytes);
    Ok(())
}

#[tokio::test]
async fn answers_that_do_not_fit_the_question_are_not_stored() -> Result<()> {
    for manner in [Manner::OtherPart, Manner::Compressed] {
        let it = Box::new()?;
        let bytes = content(SIZE);
        let odd = Server::start(&it.authority, &bytes, &[manner]).await?;
        let good = Server::start(&it.authority, &bytes, &[Manner::Good]).await?;
        let fetcher = it.fetcher(None)?;
        let thing = artifact(&bytes, &[odd.url(), good.url()]);
        fetcher
            .fetch_artifacts(std::slice::from_ref(&thing))
            .await
            .unwrap();
        assert_eq!(good.offsets(), [0]);
    }
    Ok(())
}

#[tokio::test]
async fn redirects_are_followed_and_end() -> Result<()> {
    let it = Box::new()?;
    let bytes = content(SIZE);
    let target = Server::start(&it.authority, &bytes, &[Manner::Good]).await?;
    let there = Manner::Redirect(format!("{}/elsewhere?signature=1", target.url()));
    let first = Server::start(&it.authority, &bytes, &[Manner::Redirect("/again".into()), there]).await?;
    let fetcher = it.fetcher(None)?;
    let thing = artifact(&bytes, &[format!("{}/a/b", first.url())]);
    fetcher.fetch_artifacts(&[thing]).await.unwrap();
    let paths: Vec<_> = first
        .asked
        .borrow()
        .iter()
        .map(|(path, ..)| path.clone())
        .collect();
    assert_eq!(paths, ["/a/b", "/again"]);
    assert_eq!(target.asked.borrow()[0].0, "/elsewhere?signature=1");

    for (to, said) in [
        ("/round", "leads on and on"),
        ("http://localhost/plain", "not an https:// address"),
    ] {
        let server = Server::start(&it.authority, &bytes, &[Manner::Redirect(to.into())]).await?;
        let other = artifact(&content(10), &[server.url()]);
        let failure = fetcher.fetch_artifacts(&[other]).await.unwrap_err();
        assert!(
            failure.problem.message.contains(said),
            "{}",
            failure.problem.message
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_not_asked() -> Result<()> {
    let it = Box::new()?;
    let stranger = crate::support::Authority::new()?;
    let bytes = content(10);
    let server = Server::start(&stranger, &bytes, &[Manner::Good]).await?;
    let fetcher = it.fetcher(None)?;
    let failure = fetcher
        .fetch_artifacts(&[artifact(&bytes, &[server.url()])])
        .await
        .unwrap_err();
    assert!(
        failure.problem.message.contains("no TLS with"),
        "{}",
        failure.problem.message
    );
    assert!(server.asked.borrow().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_proxy_carries_what_is_not_exempt() -> Result<()> {
    let mut it = Box::new()?;
    let bytes = content(SIZE);
    let server = Server::start(&it.authority, &bytes, &[Manner::Good]).await?;
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    it.settings.artifacts.proxy = Some(format!(
        "http://user:word@127.0.0.1:{}",
        proxy.local_addr()?.port()
    ));
    let carried = tokio::spawn(async move {
        let (mut stream, _) = proxy.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let target = head.split(' ').nth(1).unwrap();
        let mut there = tokio::net::TcpStream::connect(target).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
        head
    });
    let fetcher = it.fetcher(None)?;
    fetcher
        .fetch_artifacts(&[artifact(&bytes, &[server.url()])])
        .await
        .unwrap();
    drop(fetcher);
    let head = carried.await?;
    assert!(
        head.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", server.port)),
        "{head}"
    );
    assert!(
        head.contains("Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n"),
        "{head}"
    );

    // The proxy is gone; an exempt host does not need it.
    it.settings.artifacts.no_proxy = vec!["localhost".into()];
    let other = content(SIZE + 1);
    let server = Server::start(&it.authority, &other, &[Manner::Good]).await?;
    it.fetcher(None)?
        .fetch_artifacts(&[artifact(&other, &[server.url()])])
        .await
        .unwrap();
    Ok(())
}

#[tokio::test]
async fn the_bandwidth_limit_holds_and_progress_is_told() -> Result<()> {
    let mut it = Box::new()?;
    it.settings.artifacts.bandwidth.0 = 512 * 1024;
    let bytes = content(SIZE);
    let server = Server::start(&it.authority, &bytes, &[Manner::Good]).await?;
    let fetcher = it.fetcher(None)?;
    let mut progress = fetcher.progress();
    let thing = artifact(&bytes, &[server.url()]);
    let begin = Instant::now();
    let fetching = tokio::spawn(async move { fetcher.fetch_artifacts(&[thing]).await });
    let seen = progress
        .wait_for(|progress| progress.done > 0 && progress.done < progress.total)
        .await?
        .clone();
    assert_eq!((seen.total, seen.name.as_str()), (SIZE as u64, "thing.tar"));
    assert_eq!(seen.source, format!("localhost:{}", server.port));
    fetching.await?.unwrap();
    // 1 MiB at 512 KiB/s: a second's worth comes at once, the rest takes a second.
    assert!(
        begin.elapsed() >= Duration::from_millis(900),
        "{:?}",
        begin.elapsed()
    );
    let end = progress.borrow().clone();
    assert_eq!(end.done, end.total);
    Ok(())
}
