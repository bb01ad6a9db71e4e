//! Where secrets come from, and that they stay there.

use secrecy::ExposeSecret;

use super::*;

#[test]
fn an_access_token_comes_from_one_source() {
    let error = refused(&format!("[homeserver]\naccess_token = '{TOKEN}'"));
    assert!(error.starts_with("backscroll.toml, line 2: `homeserver.access_token` is not allowed"));
    assert!(error.contains("access_token_file") && !error.contains(TOKEN), "{error}");

    let token = |config: &Config| match config.homeserver.credentials().unwrap() {
        Credentials::Token(source) => source.read().unwrap().expose_secret().to_owned(),
        Credentials::Password { .. } => "password".to_owned(),
    };
    let place = Place::new("data_dir='d'\n[homeserver]\naccess_token_file = 'token'\n");
    place.write("token", "from_file\n");
    place.write("credentials/access_token", "from_systemd\n");
    assert_eq!(token(&place.load([]).unwrap()), "from_file");
    let credentials = ("CREDENTIALS_DIRECTORY", "credentials");
    let config = place.load([credentials]).unwrap();
    assert_eq!(token(&config), "from_systemd");
    assert!(config.show().contains("not used, for there is a systemd credential"));
    let variable = ("BACKSCROLL_HOMESERVER__ACCESS_TOKEN", TOKEN);
    assert_eq!(
        place.load([variable]).unwrap_err(),
        "environment variable BACKSCROLL_HOMESERVER__ACCESS_TOKEN: `homeserver.access_token` and \
         `homeserver.access_token_file` (backscroll.toml, line 3) are both set: keep one of them"
    );
    let config = load_env([variable]).unwrap();
    assert_eq!(token(&config), TOKEN);
    assert!(config.warnings[0].contains("prefer homeserver.access_token_file"));
    let error = load_env([("BACKSCROLL_HOMESERVER__ACCESS_TOKEN", "syt_c\nanary")]).unwrap_err();
    assert!(error.contains("are not allowed") && !error.contains("anary"), "{error}");
    let error = refused(&format!("[homeserver]\naccess_token_file = '{TOKEN}'"));
    assert!(error.contains("contains the secret itself") && !error.contains(TOKEN), "{error}");
}

#[test]
fn a_user_logs_in_with_a_password_file() {
    let place = Place::new("data_dir='d'\n[homeserver]\nuser = '@a:hs'\npassword_file = 'p'\n");
    place.write("p", "korrekt horse\n");
    let credentials = place.load([]).unwrap().homeserver.credentials().unwrap();
    let Credentials::Password { user, password } = credentials else {
        panic!("{credentials:?}");
    };
    assert_eq!(user, "@a:hs");
    assert_eq!(password.read().unwrap().expose_secret(), "korrekt horse");
}

#[test]
fn a_database_comes_from_one_source() {
    let url = |config: &Config| config.database.url().unwrap().map(|url| url.expose());
    let plain = ("DATABASE_URL", "postgres://plain/d");
    let ours = ("BACKSCROLL_DATABASE__URL", "postgres://ours/d");
    let credentials = ("CREDENTIALS_DIRECTORY", "credentials");
    assert_eq!(url(&load_env([plain]).unwrap()).unwrap(), plain.1);
    assert_eq!(url(&load_env([plain, ours]).unwrap()).unwrap(), ours.1);
    let config = Place::new("data_dir='d'\n[database]\nurl='postgres://file/d'").load([plain]);
    assert_eq!(url(&config.unwrap()).unwrap(), "postgres://file/d");

    let place = Place::new("data_dir='d'\n[database]\nurl_file = 'url'");
    place.write("url", "postgres://u:canary@secret/d\n");
    place.write("credentials/database_url", "postgres://u:canary@systemd/d\n");
    assert_eq!(url(&place.load([plain]).unwrap()).unwrap(), "postgres://u:canary@secret/d");
    assert!(place.load([ours]).unwrap_err().contains("are both set"));
    let config = place.load([plain, credentials]).unwrap();
    assert_eq!(url(&config).unwrap(), "postgres://u:canary@systemd/d");
    assert!(!config.show().contains("canary"));

    let error = load_env([("DATABASE_URL", "mysql://u:canary@h/d")]).unwrap_err();
    assert!(error.contains("DATABASE_URL") && !error.contains("canary"), "{error}");
}
