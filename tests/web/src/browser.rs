//! A headless Chromium, driven over the WebDriver protocol (<https://www.w3.org/TR/webdriver2/>) by plain HTTP on loopback.
//!
//! In: addresses, clicks, typed text, scripts. Out: what the page shows, and screenshots below `target/screenshots`. Each browser has a
//! profile of its own and ends with its handle.

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use holdfast_harness::{Process, paths, wait};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;
use tokio::process::Command;

/// How long a program or a page may take to come up, and a page to show what it should.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the page is looked at with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// A phone, 390 × 844 points with touch.
    Phone,
    /// A desktop window, 1280 × 900.
    Desktop,
}

/// Which colours the person prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

/// A running browser with one page.
pub struct Browser {
    session: String,
    http: Client,
    // Ended in this order: the driver ends the browser, then the profile goes.
    _driver: Process,
    _profile: TempDir,
}

fn program(names: &[&str], package: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    names
        .iter()
        .flat_map(|name| env::split_paths(&path).map(move |directory| directory.join(name)))
        .find(|path| path.is_file())
        .with_context(|| format!("{} is not installed: apt-get install {package}", names[0]))
}

/// A driver, and the port it listens on.
///
/// It takes a free port of IPv4 and then asks for the same one of IPv6, which somebody else may have: then another one is started.
async fn driver(profile: &Path) -> Result<(Process, u16)> {
    let log = profile.join("chromedriver.log");
    let mut tries = 0;
    'start: loop {
        tries += 1;
        let mut command = Command::new(program(&["chromedriver"], "chromium-driver")?);
        command.arg("--port=0");
        let mut driver = Process::start("chromedriver", command, &log)?;
        loop {
            match driver.line(PATIENCE).await {
                Ok(line) => {
                    if let Some((_, port)) = line.split_once("started successfully on port ") {
                        return Ok((driver, port.trim_end_matches('.').parse()?));
                    }
                }
                Err(error) if tries < 5 && format!("{error:#}").contains("Address already in use") => {
                    continue 'start;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Browser {
    /// Starts a browser.
    pub async fn start(screen: Screen) -> Result<Self> {
        holdfast_harness::install_tls_provider();
        let profile = tempfile::tempdir()?;
        let (driver, port) = driver(profile.path()).await?;
        let http = Client::new();
        let base = format!("http://127.0.0.1:{port}");
        let mut options = json!({
            "binary": program(&["chromium", "google-chrome", "chromium-browser"], "chromium")?,
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
                "--hide-scrollbars", "--lang=en-GB", "--window-size=1280,900",
                format!("--user-data-dir={}", profile.path().join("profile").display()),
            ],
        });
        if screen == Screen::Phone {
            options["mobileEmulation"] =
                json!({ "deviceMetrics": { "width": 390, "height": 844, "pixelRatio": 2.0, "touch": true } });
        }
        let wish = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let made = send(&http, Method::POST, &format!("{base}/session"), Some(&wish)).await?;
        let id = made["sessionId"]
            .as_str()
            .context("the driver names no session")?;
        Ok(Self {
            session: format!("{base}/session/{id}"),
            http,
            _driver: driver,
            _profile: profile,
        })
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        send(
            &self.http,
            Method::POST,
            &format!("{}/{path}", self.session),
            Some(body),
        )
        .await
    }

    /// Opens an address.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.post("url", &json!({ "url": url })).await.map(drop)
    }

    /// Sets the preferred colours.
    pub async fn prefer(&self, colours: Colours) -> Result<()> {
        let value = if colours == Colours::Dark { "dark" } else { "light" };
        let body = json!({ "cmd": "Emulation.setEmulatedMedia",
            "params": { "features": [{ "name": "prefers-color-scheme", "value": value }] } });
        self.post("goog/cdp/execute", &body).await.map(drop)
    }

    /// Runs a script in the page and gives what it returns.
    pub async fn run(&self, script: &str) -> Result<Value> {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
            .await
    }

    /// Waits until a script's expression is true.
    pub async fn until(&self, what: &str, expression: &str) -> Result<()> {
        let script = format!("return Boolean({expression})");
        let seen = wait::until(what, PATIENCE, || async {
            Ok((self.run(&script).await? == Value::Bool(true)).then_some(()))
        })
        .await;
        match seen {
            Ok(()) => Ok(()),
            Err(error) => bail!("{error:#}\nthe page shows:\n{}", self.text("body").await?),
        }
    }

    /// Waits until the text of the page (or of the first element that fits `css`) contains `text`.
    pub async fn until_text(&self, css: &str, text: &str) -> Result<()> {
        self.until(
            &format!("{css} shows {text:?}"),
            &format!(
                "document.querySelector({})?.innerText.includes({})",
                json!(css),
                json!(text)
            ),
        )
        .await
    }

    /// What the first element that fits shows.
    pub async fn text(&self, css: &str) -> Result<String> {
        let script = format!("return document.querySelector({})?.innerText ?? ''", json!(css));
        Ok(self.run(&script).await?.as_str().unwrap_or_default().to_owned())
    }

    async fn element(&self, css: &str) -> Result<String> {
        let body = json!({ "using": "css selector", "value": css });
        let found = self.post("element", &body).await?;
        found
            .as_object()
            .and_then(|map| map.values().next())
            .and_then(Value::as_str)
            .map(str::to_owned)
            .with_context(|| format!("no element {css}"))
    }

    /// Clicks the first element that fits, as a person would: scrolls to it first, and it must be visible and not covered.
    pub async fn click(&self, css: &str) -> Result<()> {
        let id = self.element(css).await?;
        let script = format!(
            "document.querySelector({})?.scrollIntoView({{ block: 'center' }})",
            json!(css)
        );
        self.run(&script).await?;
        self.post(&format!("element/{id}/click"), &json!({}))
            .await
            .map(drop)
            .with_context(|| format!("click {css}"))
    }

    /// Types into the first element that fits.
    pub async fn type_into(&self, css: &str, text: &str) -> Result<()> {
        let id = self.element(css).await?;
        self.post(&format!("element/{id}/value"), &json!({ "text": text }))
            .await
            .map(drop)
            .with_context(|| format!("type into {css}"))
    }

    /// Logs in on the page at `url`.
    pub async fn log_in(&self, url: &str, token: &str) -> Result<()> {
        self.open(url).await?;
        self.until("the log-in is shown", "document.querySelector('#token')")
            .await?;
        self.type_into("#token", token).await?;
        self.click("form button.primary").await?;
        self.until_text(".sign", "Live").await
    }

    /// Widths of the whole page and of the window: a page that is wider scrolls sideways.
    pub async fn widths(&self) -> Result<(i64, i64)> {
        let found = self
            .run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            .await?;
        let width = |index: usize| found[index].as_i64().context("no width");
        Ok((width(0)?, width(1)?))
    }

    /// Writes the whole page, with what is below the window, to `target/screenshots/{name}.png`.
    pub async fn screenshot(&self, name: &str) -> Result<()> {
        let command = json!({ "cmd": "Page.captureScreenshot", "params": { "captureBeyondViewport": true } });
        let found = self.post("goog/cdp/execute", &command).await?;
        let image = STANDARD.decode(found["data"].as_str().context("no screenshot")?)?;
        let directory = paths::repository().join("target/screenshots");
        fs::create_dir_all(&directory)?;
        let mut file = fs::File::create(directory.join(format!("{name}.png")))?;
        Ok(std::io::Write::write_all(&mut file, &image)?)
    }

    /// What the browser complained about since the last call: script errors and breaches of the page's policy, but not refused requests,
    /// which the browser also writes there.
    pub async fn complaints(&self) -> Result<Vec<String>> {
        let entries = self.post("se/log", &json!({ "type": "browser" })).await?;
        Ok(entries
            .as_array()
            .into_iter()
            .flatten()
            .filter(|entry| entry["level"] == "SEVERE" && entry["source"] != "network")
            .map(|entry| entry["message"].to_string())
            .collect())
    }

    /// Ends the browser.
    pub async fn end(self) -> Result<()> {
        send(&self.http, Method::DELETE, &self.session, None)
            .await
            .map(drop)
    }
}

/// Sends a WebDriver command and gives its value.
async fn send(http: &Client, method: Method, url: &str, body: Option<&Value>) -> Result<Value> {
    let mut request = http.request(method, url);
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().await?;
    let success = response.status().is_success();
    let mut answer: Value = response.json().await?;
    let value = answer["value"].take();
    if success {
        return Ok(value);
    }
    bail!("{}: {}", value["error"], value["message"])
}
