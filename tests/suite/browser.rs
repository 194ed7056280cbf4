//! A headless Chromium, driven over WebDriver (<https://www.w3.org/TR/webdriver2/>).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use libtest_mimic::Failed;
use serde_json::{Value, json};
use whodunit_containers::condition::{PATIENCE, wait_until};
use whodunit_containers::find_program;

use crate::Outcome;

/// What is missing for a browser.
pub(crate) fn lacks() -> Option<&'static str> {
    let there = ["chromium", "chromedriver"].into_iter().all(|name| find_program(name).is_some());
    (!there)
        .then_some("there is no Chromium; install the Debian packages chromium and chromium-driver")
}

/// A browser with one window. Dropped, it is closed.
pub(crate) struct Browser {
    driver: Child,
    address: String,
    session: String,
}

impl Browser {
    /// Opens a window of that size, in pixels of the page.
    pub(crate) fn open(width: u32, height: u32) -> Result<Browser, Failed> {
        let program = find_program("chromedriver").ok_or("chromedriver is gone")?;
        let mut driver = Command::new(program)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut lines = BufReader::new(driver.stdout.take().ok_or("no standard output")?).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let port = line.split("successfully on port ").nth(1)?;
                Some(port.trim_end_matches('.').to_owned())
            })
            .ok_or("chromedriver says no port")?;
        // What it says later has to go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        let mut browser =
            Browser { driver, address: format!("127.0.0.1:{port}"), session: String::new() };
        // Without a sandbox, since tests run as root.
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--hide-scrollbars".to_owned(),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.send("POST", "/session", &wanted)?;
        browser.session =
            session["sessionId"].as_str().ok_or("chromedriver gives no session")?.to_owned();
        // Narrower than a window of a desktop may be.
        browser.devtools(
            "Emulation.setDeviceMetricsOverride",
            &json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": true }),
        )?;
        Ok(browser)
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, Failed> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(2 * PATIENCE))?;
        let body = if method == "GET" { String::new() } else { body.to_string() };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("the answer has no head")?;
        let value = serde_json::from_str::<Value>(body)?["value"].take();
        match value.get("error") {
            Some(error) if !error.is_null() => {
                Err(format!("{method} {path}: {error}: {}", value["message"]).into())
            }
            _ => Ok(value),
        }
    }

    fn post(&self, command: &str, body: &Value) -> Result<Value, Failed> {
        self.send("POST", &format!("/session/{}/{command}", self.session), body)
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Result<Value, Failed> {
        self.post("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// Goes to a page and waits until it is loaded.
    pub(crate) fn go(&self, url: &str) -> Outcome {
        self.post("url", &json!({ "url": url }))?;
        Ok(())
    }

    /// The value of an expression in the page.
    pub(crate) fn value(&self, expression: &str) -> Result<Value, Failed> {
        let script = format!("return ({expression});");
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression in the page is true.
    pub(crate) fn wait(&self, expression: &str) -> Outcome {
        if wait_until(PATIENCE, || self.value(expression).is_ok_and(|it| it == Value::Bool(true))) {
            return Ok(());
        }
        let text = self.value("document.body.innerText")?;
        Err(format!("never true: {expression}; the page says {text}").into())
    }

    /// Presses a key: `\u{e004}` is Tab, `\u{e007}` is Enter.
    pub(crate) fn press(&self, key: char) -> Outcome {
        let actions = json!({ "actions": [{ "type": "key", "id": "keys", "actions": [
            { "type": "keyDown", "value": key }, { "type": "keyUp", "value": key },
        ] }] });
        self.post("actions", &actions)?;
        Ok(())
    }

    /// Prefers `light` or `dark`.
    pub(crate) fn prefer(&self, scheme: &str) -> Outcome {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": features }))?;
        Ok(())
    }

    /// What the console was told, and is worth a complaint.
    pub(crate) fn complaints(&self) -> Result<Vec<String>, Failed> {
        let log = self.post("se/log", &json!({ "type": "browser" }))?;
        let entries = log.as_array().into_iter().flatten();
        let entries = entries.filter(|entry| entry["level"] != "INFO" && entry["level"] != "DEBUG");
        Ok(entries.map(Value::to_string).collect())
    }

    /// Saves what is seen, where `WHODUNIT_SCREENSHOTS` names a folder: Base64 of a PNG, as WebDriver gives it.
    pub(crate) fn screenshot(&self, name: &str) -> Outcome {
        let Some(folder) = std::env::var_os("WHODUNIT_SCREENSHOTS") else {
            return Ok(());
        };
        let picture =
            self.send("GET", &format!("/session/{}/screenshot", self.session), &Value::Null)?;
        let path = std::path::Path::new(&folder).join(format!("{name}.png.base64"));
        std::fs::write(path, picture.as_str().unwrap_or_default())?;
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.send("DELETE", &format!("/session/{}", self.session), &Value::Null);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
