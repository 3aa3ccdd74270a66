//! Receivers of alerts that are not ours: `python/receivers.py` with the libraries of Standard Webhooks and of a mail server, and Debian's
//! Alertmanager.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    RUNTIME,
    program::{Lines, Program, python, script, tool},
    wait::{SOON, eventually},
};

/// The secret of the webhooks.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What the mail servers ask for.
const PASSWORD: &str = "correct horse";

/// The receivers, as long as they live.
#[derive(Debug)]
pub struct Receivers {
    folder: PathBuf,
    program: Program,
    lines: Lines,
    /// Port of the HTTP receivers.
    pub http: u64,
    smtp: u64,
    starttls: u64,
}

impl Receivers {
    /// Whether the libraries are here; the reason where they are not.
    ///
    /// # Panics
    /// Where they must be: in CI.
    pub fn missing() -> Option<String> {
        let said = Command::new(python())
            .args(["-c", "import aiosmtpd, standardwebhooks"])
            .output();
        let there = said.is_ok_and(|said| said.status.success());
        missing(
            there,
            "aiosmtpd and standardwebhooks in the tests' Python: run tests/prepare",
        )
    }

    /// Makes an authority and a certificate for the mail servers, and starts.
    pub fn start(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        certificate(folder);
        let lines = Lines::default();
        let mut command = Command::new(python());
        command
            .arg(script("receivers.py"))
            .arg(SECRET)
            .arg(folder.join("smtp.pem"))
            .arg(folder.join("smtp.key"))
            .arg("0");
        let program = Program::start("receivers", &mut command, Lines::clone(&lines));
        let ports = eventually("the receivers listen", SOON, || {
            lines.lock().expect("lines").iter().find_map(|line| {
                serde_json::from_str::<Value>(line)
                    .ok()?
                    .get("ports")
                    .cloned()
            })
        });
        let port = |name: &str| ports[name].as_u64().expect("a port");
        secret(folder, "webhook.secret", SECRET);
        secret(
            folder,
            "slack.url",
            &format!("http://127.0.0.1:{}/services/T0/B0/x", port("http")),
        );
        secret(folder, "mail.password", PASSWORD);
        Self {
            http: port("http"),
            smtp: port("smtp"),
            starttls: port("starttls"),
            folder: folder.to_owned(),
            program,
            lines,
        }
    }

    /// The part of a configuration that names all of them, with Alertmanager where one is given.
    pub fn config(&self, alertmanager: Option<u64>) -> String {
        let (folder, http) = (self.folder.display(), self.http);
        let mail = |name: &str, port: u64, security: &str| {
            format!(
                "[[email]]\nname = \"{name}\"\nserver = \"127.0.0.1\"\nport = {port}\nsecurity = \"{security}\"\nfrom = \"Pristine <pristine@c.example>\"\n\
                 to = [\"ops@c.example\", \"Night <night@c.example>\"]\nuser = \"pristine\"\npassword_file = \"{folder}/mail.password\"\nca = \"{folder}/ca.pem\"\n"
            )
        };
        format!(
            "[[webhook]]\nname = \"hook\"\nurl = \"http://127.0.0.1:{http}/hook\"\nsecret_file = \"{folder}/webhook.secret\"\n\
             [[webhook]]\nname = \"grouped\"\nurl = \"http://127.0.0.1:{http}/grouped\"\nsecret_file = \"{folder}/webhook.secret\"\ngrouping = true\n\
             [[slack]]\nname = \"chat\"\nurl_file = \"{folder}/slack.url\"\n\
             [[alertmanager]]\nname = \"am\"\nurl = \"http://127.0.0.1:{}\"\n{}{}",
            alertmanager.unwrap_or(http),
            mail("mail", self.smtp, "tls"),
            mail("mail-starttls", self.starttls, "starttls"),
        )
    }

    /// How each receiver answers from now on.
    pub fn mode(&self, mode: &Value) {
        let client = {
            let _runtime = RUNTIME.enter();
            reqwest::Client::new()
        };
        let sent = client
            .post(format!("http://127.0.0.1:{}/mode", self.http))
            .json(mode)
            .send();
        RUNTIME.block_on(sent).expect("the receivers answer");
    }

    /// All receivers answer alike.
    pub fn all(&self, mode: &str) {
        self.mode(&json!({"webhook": mode, "slack": mode, "alertmanager": mode, "smtp": mode, "starttls": mode}));
    }

    /// Every message that arrived, accepted or not, in order.
    pub fn arrived(&self) -> Vec<Value> {
        let lines = self.lines.lock().expect("lines");
        lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line.get("channel").is_some())
            .collect()
    }

    /// Messages of one channel (`hook`, `grouped`, `chat`, `am`, `mail`, `mail-starttls`) that were accepted.
    pub fn accepted(&self, channel: &str) -> Vec<Value> {
        let is_of = |line: &Value| match channel {
            "hook" | "grouped" => line["path"] == format!("/{channel}"),
            "chat" => line["channel"] == "slack",
            "am" => line["channel"] == "alertmanager",
            "mail" => line["channel"] == "smtp",
            other => line["channel"] == other.trim_start_matches("mail-"),
        };
        self.arrived()
            .into_iter()
            .filter(|line| line["accepted"] == true && is_of(line))
            .collect()
    }

    /// Messages that a receiver found wrong: there must be none.
    pub fn refused(&self) -> Vec<Value> {
        self.arrived()
            .into_iter()
            .filter(|line| !line["refused"].is_null())
            .collect()
    }

    /// What the program complained of.
    pub fn complaint(&self) -> String {
        self.program.complaint()
    }
}

/// Debian's Alertmanager.
#[derive(Debug)]
pub struct Alertmanager {
    program: Program,
    /// Where it listens.
    pub port: u64,
}

impl Alertmanager {
    /// Why there is none here.
    ///
    /// # Panics
    /// Where it must be: in CI.
    pub fn missing() -> Option<String> {
        missing(
            finds("prometheus-alertmanager"),
            "prometheus-alertmanager: apt-get install prometheus-alertmanager",
        )
    }

    /// Starts it with its data in `folder`.
    pub fn start(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        let config = folder.join("alertmanager.yml");
        fs::write(
            &config,
            "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n",
        )
        .expect("a configuration");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let mut command = Command::new("prometheus-alertmanager");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=");
        let program = Program::start("alertmanager", &mut command, Lines::default());
        let started = Self {
            program,
            port: u64::from(port),
        };
        eventually("alertmanager is ready", SOON, || {
            started.get("/-/ready").map(drop)
        });
        started
    }

    /// The alerts that stand there.
    pub fn alerts(&self) -> Vec<Value> {
        let answer = self.get("/api/v2/alerts?active=true&unprocessed=true");
        let alerts = answer.and_then(|text| serde_json::from_str(&text).ok());
        match alerts {
            Some(Value::Array(alerts)) => alerts,
            _ => Vec::new(),
        }
    }

    fn get(&self, path: &str) -> Option<String> {
        let client = {
            let _runtime = RUNTIME.enter();
            reqwest::Client::new()
        };
        let sent = client
            .get(format!("http://127.0.0.1:{}{path}", self.port))
            .send();
        RUNTIME.block_on(async {
            let answer = sent.await.ok()?.error_for_status().ok()?;
            answer.text().await.ok()
        })
    }

    /// What it complained of.
    pub fn complaint(&self) -> String {
        self.program.complaint()
    }
}

/// Whether the system has a command.
pub fn finds(command: &str) -> bool {
    Command::new(command)
        .arg("--version")
        .output()
        .is_ok_and(|said| said.status.success())
}

/// Says why something is left out; in CI nothing is.
pub fn missing(there: bool, what: &str) -> Option<String> {
    if there {
        return None;
    }
    assert!(std::env::var_os("CI").is_none(), "CI must have {what}");
    Some(format!("left out, not here: {what}"))
}

fn secret(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, text).expect("a secret");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
}

fn certificate(folder: &Path) {
    let path = |name: &str| folder.join(name).to_str().expect("a text path").to_owned();
    fs::write(
        folder.join("names"),
        "subjectAltName=IP:127.0.0.1,DNS:localhost\n",
    )
    .expect("names");
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let authority = [
        "req",
        "-x509",
        "-subj",
        "/CN=test authority",
        "-days",
        "2",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-keyout",
        &path("ca.key"),
        "-out",
        &path("ca.pem"),
    ];
    tool("openssl", authority.iter().chain(&key).copied());
    let request = [
        "req",
        "-subj",
        "/CN=localhost",
        "-keyout",
        &path("smtp.key"),
        "-out",
        &path("smtp.csr"),
    ];
    tool("openssl", request.iter().chain(&key).copied());
    let signed = [
        "x509",
        "-req",
        "-in",
        &path("smtp.csr"),
        "-CA",
        &path("ca.pem"),
        "-CAkey",
        &path("ca.key"),
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        &path("names"),
        "-out",
        &path("smtp.pem"),
    ];
    tool("openssl", signed);
}
