//! The server process behind a [`super::Synapse`]: how it is found, configured, started and ended.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::TOKEN;

const VERSION: &str = "1.163.2";

/// Memory, where there is some: it saves the commits' fsync.
pub(super) fn fast_directory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if tempfile::tempfile_in(memory).is_ok() { memory.to_owned() } else { env::temp_dir() }
}

/// The interpreter of the environment that `deploy/synapse.sh install` makes.
pub(crate) fn python() -> PathBuf {
    let installed = || {
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
        cache.unwrap_or_default().join("backscroll").join(format!("synapse-{VERSION}"))
    };
    let place = ["BACKSCROLL_TEST_SYNAPSE", "BACKSCROLL_SYNAPSE_VENV"];
    let place = place.iter().find_map(env::var_os).map_or_else(installed, PathBuf::from);
    let python = place.join("bin/python");
    assert!(
        python.exists(),
        "this test needs Synapse in {}: run ./deploy/synapse.sh install, or ./tests/run.sh for everything",
        place.display()
    );
    python
}

/// Writes all that Synapse reads at its start.
pub(super) fn configure(directory: &Path, port: u16, settings: &Value) {
    let path = |name: &str| directory.join(name).to_str().expect("UTF-8").to_owned();
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).expect("write");
    write("signing.key", "ed25519 a_1 nlkMDsjZ6HqI8Q3mUOtY0mJ1oQ5cv2mCw6rNSKeNY8A\n");
    let service = json!({
        "id": "test", "url": null, "as_token": TOKEN, "hs_token": "unused", "sender_localpart": "_test",
        "rate_limited": false, "namespaces": { "users": [{ "exclusive": false, "regex": "@.*" }] },
    });
    write("appservice.yaml", &service.to_string());
    let log = json!({
        "version": 1, "disable_existing_loggers": false, "root": { "level": "WARNING", "handlers": ["file"] },
        "handlers": { "file": { "class": "logging.FileHandler", "filename": path("synapse.log") } },
    });
    write("log.yaml", &log.to_string());

    let free = json!({ "per_second": 1e6, "burst_count": 1_000_000 });
    let mut config = json!({
        "server_name": "localhost",
        "public_baseurl": format!("http://127.0.0.1:{port}/"),
        "listeners": [{
            "port": port, "bind_addresses": ["127.0.0.1"], "type": "http",
            "resources": [{ "names": ["client", "keys"] }],
        }],
        "database": { "name": "sqlite3", "args": { "database": path("homeserver.db") } },
        "signing_key_path": path("signing.key"),
        "media_store_path": path("media"),
        "log_config": path("log.yaml"),
        "app_service_config_files": [path("appservice.yaml")],
        "enable_registration": true,
        "enable_registration_without_verification": true,
        "bcrypt_rounds": 4,
        "report_stats": false,
        "federation_domain_whitelist": [],
        "trusted_key_servers": [],
        "presence": { "enabled": false },
        "caches": { "sync_response_cache_duration": "0s" },
        "rc_login": { "address": free, "account": free, "failed_attempts": free },
        "rc_joins": { "local": free, "remote": free },
        "rc_invites": { "per_room": free, "per_user": free, "per_issuer": free },
    });
    for key in ["message", "registration", "admin_redaction", "joins_per_room", "room_creation", "profile"] {
        config[format!("rc_{key}")] = free.clone();
    }
    for (key, value) in settings.as_object().expect("settings are a map") {
        match (key.as_str(), value) {
            ("listeners", Value::Array(more)) => {
                config["listeners"].as_array_mut().expect("a list").extend(more.clone());
            }
            _ => config[key] = value.clone(),
        }
    }
    if config["listeners"].as_array().is_some_and(|all| all.len() > 1) {
        certify(directory);
        config["tls_certificate_path"] = json!(path("tls.crt"));
        config["tls_private_key_path"] = json!(path("tls.key"));
    }
    // JSON is YAML.
    write("homeserver.yaml", &config.to_string());
}

/// Runs the admin command `export-data` of a server that does not run.
pub(super) fn export_data(directory: &Path, user_id: &str, output: &Path) {
    let done = Command::new(python())
        .args(["-m", "synapse.app.admin_cmd", "-c", "homeserver.yaml", "export-data", user_id])
        .arg("--output-directory")
        .arg(output)
        .current_dir(directory)
        .output()
        .expect("the admin command");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Settings of a server that federates over loopback on this port, and is quick to try again.
pub(super) fn federating(port: u16) -> Value {
    json!({
        "server_name": format!("localhost:{port}"),
        "listeners": [{
            "port": port, "bind_addresses": ["127.0.0.1"], "type": "http", "tls": true,
            "resources": [{ "names": ["federation"] }],
        }],
        "federation_domain_whitelist": null,
        "federation_verify_certificates": false,
        "ip_range_blacklist": [],
        "federation_ip_range_blacklist": [],
        "federation": {
            "client_timeout": "10s", "max_short_retry_delay": "1s", "max_short_retries": 1,
            "destination_min_retry_interval": "1s", "destination_max_retry_interval": "1s",
            "destination_retry_multiplier": 1,
        },
        "rc_federation": {
            "window_size": 1000, "sleep_limit": 100_000, "sleep_delay": 1, "reject_limit": 100_000,
            "concurrent": 100,
        },
    })
}

/// Makes a certificate that nobody signed, once.
fn certify(directory: &Path) {
    if directory.join("tls.crt").exists() {
        return;
    }
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-keyout", "tls.key", "-out", "tls.crt"])
        .current_dir(directory)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// The files of its database, those of its journal too.
pub(super) fn database_files(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).expect("list").map(|entry| entry.expect("an entry").path());
    let ours = |path: &PathBuf| {
        path.file_name().is_some_and(|it| it.as_encoded_bytes().starts_with(b"homeserver.db"))
    };
    files.filter(ours).collect()
}

/// Copies the database of a server that does not run.
pub(super) fn copy_database(from: &Path, to: &Path) {
    for file in database_files(from) {
        fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("copy");
    }
}

/// Makes a user of a server that does not run its administrator.
pub(super) fn make_administrator(directory: &Path, user_id: &str) {
    let script = "import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as database:
    database.execute('update users set admin = 1 where name = ?', (sys.argv[2],))";
    let arguments = ["-c", script, "homeserver.db", user_id];
    let made = Command::new(python()).args(arguments).current_dir(directory).status().expect("python");
    assert!(made.success(), "{made}");
}

/// The server process, held by a thread of its own: the kernel kills it when the thread that spawned it ends,
/// however the test ends.
pub(super) struct Process {
    end: Option<mpsc::Sender<()>>,
    holder: Option<thread::JoinHandle<()>>,
}

impl Process {
    pub(super) fn spawn(directory: &Path) -> Self {
        let python = python();
        let has_setpriv =
            Command::new("setpriv").arg("--version").output().is_ok_and(|it| it.status.success());
        let mut command = if has_setpriv { Command::new("setpriv") } else { Command::new(&python) };
        if has_setpriv {
            command.args(["--pdeathsig", "KILL"]).arg(&python);
        }
        let output =
            fs::File::options().create(true).append(true).open(directory.join("synapse.log")).expect("log");
        command
            .args(["-m", "synapse.app.homeserver", "--config-path"])
            .arg(directory.join("homeserver.yaml"));
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("log")).stderr(output);

        let (end, ended) = mpsc::channel::<()>();
        let holder = thread::spawn(move || {
            let mut child = command.spawn().expect("Synapse starts");
            while child.try_wait().is_ok_and(|status| status.is_none()) {
                if ended.recv_timeout(Duration::from_millis(100)) == Err(mpsc::RecvTimeoutError::Disconnected)
                {
                    // It may have ended in between.
                    drop(child.kill());
                    drop(child.wait());
                }
            }
        });
        Self { end: Some(end), holder: Some(holder) }
    }

    pub(super) fn ended(&self) -> bool {
        self.holder.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end = None;
        // A panic of the thread has been printed; another one here would abort a test that already fails.
        drop(self.holder.take().map(thread::JoinHandle::join));
    }
}
