//! The configuration as a whole: layers, refusals, what is shown.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

mod refused;
mod secrets;
mod shown;

const TOKEN: &str = "syt_c2VjcmV0_canary";

/// A directory with a `backscroll.toml` of this text.
struct Place(tempfile::TempDir);

impl Place {
    fn new(toml: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("backscroll.toml", toml);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn environment<const N: usize>(&self, variables: [(&str, &str); N]) -> Environment {
        Environment::of(self.0.path(), variables)
    }

    fn load<const N: usize>(&self, variables: [(&str, &str); N]) -> Result<Config, String> {
        let environment = self.environment(variables);
        let result = Config::load_in(&environment, None, &Overrides::default());
        result.map_err(|error| self.relative(&error.to_string()))
    }

    fn relative(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn load(toml: &str) -> Result<Config, String> {
    Place::new(toml).load([("HOME", "home")])
}

fn load_env<const N: usize>(variables: [(&str, &str); N]) -> Result<Config, String> {
    Place::new("data_dir = \"data\"").load(variables)
}

fn refused(toml: &str) -> String {
    load(toml).unwrap_err()
}

#[test]
fn nothing_set_is_a_valid_configuration() {
    let config = load("").unwrap();
    assert_eq!(config.homeserver.sync_timeout, Duration::from_secs(30));
    assert!(config.database.url().unwrap().is_none());
    assert!(config.data_dir.ends_with("home/.local/share/backscroll"));
    assert!(config.data_dir.is_absolute());
    assert!(config.rooms.watches("!abc:hs", &[]));
    assert_eq!(config.backfill.page_size, 1000);
    assert_eq!(config.backfill.concurrency, 4);
    assert_eq!(config.backfill.rewalk_after.len(), 4);
    assert_eq!(config.backfill.recheck_after, Duration::from_mins(1));
    assert_eq!(config.redactions, RedactionPolicy::Honour);
    assert_eq!((config.log.format, config.log.level.as_str()), (LogFormat::Auto, "info"));
    assert!(config.http_listen.is_none() && config.warnings.is_empty());
    let missing = config.homeserver.url().unwrap_err();
    assert!(missing.to_string().starts_with("`homeserver.url` is not set: "));
    assert_eq!(missing.exit_code(), crate::Exit::Configuration);
    assert!(config.homeserver.credentials().is_err());
}

#[test]
fn environment_goes_before_file_and_flags_before_both() {
    let place = Place::new("data_dir = 'data'\n[log]\nlevel = 'warn'\n[backfill]\nconcurrency = 2\n");
    assert_eq!(place.load([]).unwrap().log.level, "warn");
    let variables = [
        ("BACKSCROLL_LOG__LEVEL", "debug"),
        ("BACKSCROLL_BACKFILL__PAGE_SIZE", "50"),
        ("BACKSCROLL_BACKFILL__CONCURRENCY", ""),
        ("BACKSCROLL_BACKFILL__REWALK_AFTER", "[]"),
        ("BACKSCROLL_ROOMS__INCLUDE", "#a:hs, !b:hs"),
        ("BACKSCROLL_ROOMS__ROOM", r#"[{ id = "!c:hs", prev_batch = "t1" }]"#),
        ("BACKSCROLL_HOMESERVER__USER", "12345"),
        ("BACKSCROLL_HOMESERVER__ALLOW_INSECURE_HTTP", "true"),
        ("BACKSCROLL_POSTGRES_BIN", "/opt/pg/bin"),
        ("BACKSCROLL_SERVICE_HOST", "10.0.0.1"),
        ("BACKSCROLL_PORT_9464_TCP", "tcp://10.0.0.1:9464"),
    ];
    let config = place.load(variables).unwrap();
    assert_eq!(config.log.level, "debug");
    assert_eq!((config.backfill.page_size, config.backfill.concurrency), (50, 2));
    assert!(config.backfill.rewalk_after.is_empty());
    assert!(config.rooms.watches("!b:hs", &[]) && !config.rooms.watches("!d:hs", &[]));
    assert_eq!(config.rooms.prev_batch("!c:hs"), Some("t1"));
    assert_eq!(config.homeserver.user.as_deref(), Some("12345"));
    assert_eq!(config.postgres_bin.as_deref(), Some(Path::new("/opt/pg/bin")));

    let mut flags = Overrides::default();
    flags.set("log.level", "--log-level", "trace");
    let config = Config::load_in(&place.environment(variables), None, &flags).unwrap();
    assert_eq!(config.log.level, "trace");
    assert!(config.show().contains("level = \"trace\""), "{}", config.show());
    assert!(config.show().contains("# flag --log-level"), "{}", config.show());
}

#[test]
fn the_file_is_searched_for_in_the_documented_order() {
    let place = Place::new("data_dir = 'here'");
    place.write("etc/backscroll/backscroll.toml", "data_dir = 'etc'");
    place.write("named.toml", "data_dir = 'named'");
    place.write("variable.toml", "data_dir = 'variable'");
    let load = |path: Option<&str>, variable| {
        let environment = place.environment([("BACKSCROLL_CONFIG", variable)]);
        let config = Config::load_in(&environment, path.map(Path::new), &Overrides::default());
        config.map(|config| config.data_dir).map_err(|error| place.relative(&error.to_string()))
    };
    assert_eq!(load(Some("named.toml"), "variable.toml").unwrap(), place.path("named"));
    assert_eq!(load(None, "variable.toml").unwrap(), place.path("variable"));
    assert_eq!(load(None, "").unwrap(), place.path("here"));
    fs::remove_file(place.path("backscroll.toml")).unwrap();
    assert_eq!(load(None, "").unwrap(), place.path("etc/backscroll/etc"));
    assert_eq!(
        load(Some("gone.toml"), "").unwrap_err(),
        "configuration file gone.toml does not exist (named by --config)"
    );
    assert_eq!(
        load(None, "gone.toml").unwrap_err(),
        "configuration file gone.toml does not exist (named by BACKSCROLL_CONFIG)"
    );
}

#[test]
fn data_dir_follows_systemd_then_the_user() {
    let dir = |variables: &[(&str, &str); 3]| Place::new("").load(*variables).map(|config| config.data_dir);
    let all = [("STATE_DIRECTORY", "/s/a:/s/b"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
    assert_eq!(dir(&all).unwrap(), Path::new("/s/a"));
    let user = [("STATE_DIRECTORY", ""), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
    assert_eq!(dir(&user).unwrap(), Path::new("/x/backscroll"));
    let home = [("A", ""), ("B", ""), ("HOME", "/h")];
    assert_eq!(dir(&home).unwrap(), Path::new("/h/.local/share/backscroll"));
    assert!(dir(&[("A", ""), ("B", ""), ("C", "")]).unwrap_err().contains("data_dir"));
    assert!(refused("data_dir = '~/b'").contains("only a shell expands"));
}
