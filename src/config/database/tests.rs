//! Every form of the URL, and that no form lets a secret out.

use super::*;
use crate::config::{Origin, secret::Kind};

const CANARY: &str = "hunter2";

fn parse(text: &str) -> Result<DatabaseUrl, Error> {
    let origin = Origin::Environment("DATABASE_URL".to_owned());
    let source = SecretSource::value(Kind::DatabaseUrl, origin, text)?;
    DatabaseUrl::parse(&source, &source.read()?)
}

/// The password, and what is shown.
fn password(text: &str) -> (String, String) {
    let url = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let password = url.password().map(|password| password.expose_secret().to_owned());
    (password.unwrap_or_default(), url.to_string())
}

#[test]
fn the_password_is_found_and_masked_wherever_it_stands() {
    for (text, shown) in [
        (
            "postgres://u:hunter2@db.example.org:5433/archive?sslmode=verify-full",
            "postgres://u:***@db.example.org:5433/archive?sslmode=verify-full",
        ),
        ("POSTGRESQL://u:hunter2@h/a", "postgres://u:***@h/a"),
        ("postgresql://u@h/archive?password=hunter2", "postgres://u:***@h/archive"),
        ("postgres://h/archive?user=u&password=hunter2", "postgres://u:***@h/archive"),
        ("postgres://:hunter2@h", "postgres://:***@h"),
        (
            "postgres://u:hunter2@%2Frun%2Fpostgresql/archive",
            "postgres:///archive?host=/run/postgresql&user=u&password=***",
        ),
        (
            "postgres://u:hunter2@/a?host=/cloudsql/x:y",
            "postgres:///a?host=/cloudsql/x:y&user=u&password=***",
        ),
        ("postgres://u:hunter2@[::1]:5433/a", "postgres://u:***@[::1]:5433/a"),
        ("host=h user=u password=hunter2 dbname=a", "postgres://u:***@h/a"),
        ("  password = 'hunter2'  host=h port=6432", "postgres://:***@h:6432"),
        ("host=::1 password=hunter2", "postgres://:***@[::1]"),
        ("host=/run/x password=hunter2", "postgres:///?host=/run/x&password=***"),
    ] {
        assert_eq!(password(text), (CANARY.to_owned(), shown.to_owned()), "{text}");
        let url = parse(text).unwrap();
        for text in [format!("{url:?}"), url.without_password(), format!("{:?}", url.warnings())] {
            assert!(!text.contains(CANARY), "{text}");
        }
    }
    assert_eq!(parse("postgres:///archive").unwrap().to_string(), "postgres:///archive");
}

#[test]
fn passwords_of_all_characters_reach_the_driver() {
    for (text, expected) in [
        ("postgres://u:p%40s+s%2F%23%3F%25@h/a", "p@s+s/#?%"),
        ("postgres://u:p@ss@h/a", "p@ss"),
        ("postgres://u:a:b:c@h/a", "a:b:c"),
        ("postgres://u:sp%20ace@h/a", "sp ace"),
        ("postgres://u:h\u{f6}r%C3%B6@h/a", "h\u{f6}r\u{f6}"),
        ("postgres://u@h/a?password=a=b+c%26", "a=b+c&"),
        (r"host=h password='it\'s # a / b ? \\ @'", r"it's # a / b ? \ @"),
        (r"host=h password=a\ b#c", "a b#c"),
    ] {
        assert_eq!(password(text).0, expected, "{text}");
        // The driver's own reading comes to the same, and it knows every parameter.
        let again = parse(&parse(text).unwrap().expose()).unwrap();
        assert_eq!(again.password().unwrap().expose_secret(), expected, "{text}");
    }
}

#[test]
fn what_cannot_be_read_safely_is_refused_and_nothing_of_it_is_shown() {
    for (text, advice) in [
        ("postgres://u:x#hunter2@h/a", "%23"),
        ("postgres://u:1#hunter2@h/a", "%23"),
        ("postgres://u:1/hunter2@h/a", "%2F"),
        ("postgres://u:/hunter2@h/a", "%2F"),
        ("postgres://u:1?hunter2@h/a", "%3F"),
        ("postgres://u:?hunter2=x@h/a", "%3F"),
        ("postgres://u:?sslmode=hunter2@h/a", "%3F"),
        ("postgres://u:hunter2@h:99999/a", "port"),
        ("postgres://u:hunter2", "port"),
        ("postgres://[hunter2", "]"),
        ("postgres://u:50%hunter2@h/a", "%25"),
        ("postgres://u:hunter2%@h/a", "%25"),
        ("postgres://u:hunter2%00@h/a", "%25"),
        ("postgres://u:hunter2%FF@h/a", "UTF-8"),
        ("postgres://h/a?user=u&password=x&hunter2", "%26"),
        ("postgres://h/a?password=x&hunter2=y", "%26"),
        ("postgres://h/a?PASSWORD=hunter2", "write `password`"),
        ("postgres://h/a?passwd=hunter2", "called `password`"),
        ("postgres://u%3Ahunter2@h/a", "escaped `:`"),
        ("postgres://h/a?sslpassword=hunter2", "encrypted key"),
        ("postgres://h/a?passfile=/hunter2", "PGPASSFILE"),
        ("postgres://h/a?sslmode=hunter2", "sslmode"),
        ("postgres://h/a?port=hunter2", "port"),
        ("postgres://h/a?hostaddr=hunter2", "hostaddr"),
        ("postgres://h/a?channel_binding=require", "remove it"),
        ("postgres://u:hunter2@a,b/d", "several hosts"),
        ("postgres://u:hunter2@a:5432,b:5432/d", "several hosts"),
        ("postgres:///d?host=a,b&password=hunter2", "several hosts"),
        ("host=a,b port=1 password=hunter2", "several hosts"),
        ("password='hunter2", "not closed"),
        ("host=h hunter2", "number 2"),
        ("mysql://u:hunter2@h/a", "postgres://user"),
        ("hunter2", "postgres://user"),
        ("u:hunter2@h/a", "postgres://user"),
        ("jdbc:postgresql://h/a?password=hunter2", "postgres://user"),
    ] {
        let Err(error) = parse(text) else { panic!("{text} is taken") };
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(CANARY), "{shown}");
        assert!(shown.starts_with("the database URL in environment variable DATABASE_URL"), "{shown}");
        assert!(shown.contains(advice), "{text}: {shown}");
    }
}

#[test]
fn a_parameter_goes_where_it_is_understood() {
    let url = parse(
        "postgres://u@h/a?connect_timeout=5&ssl-ca=/c%20a&options=-c%20a=b&options[role]=x%20y\
         &statement-cache-capacity=0&sslmode=require&sslmode=verify-ca",
    )
    .unwrap();
    let driver = "postgres://u@h/a?options=-c%20a%3Db%20-c%20role%3Dx%5C%20y&sslmode=verify-ca\
                  &sslrootcert=%2Fc%20a&statement-cache-capacity=0";
    assert_eq!(url.expose(), driver);
    assert_eq!(url.without_password(), driver.replace("&statement-cache-capacity=0", ""));
    assert!(url.warnings()[0].contains("`connect_timeout` in database.url has no effect"));
    // The driver connects to an IPv6 address only where it stands without brackets.
    assert_eq!(parse("postgres://u@[::1]:1/a").unwrap().expose(), "postgres:///a?host=%3A%3A1&port=1&user=u");
}

#[test]
fn a_distant_server_without_verification_is_worth_a_warning() {
    let warns = |text| !parse(text).unwrap().warnings().is_empty();
    assert!(warns("postgres://u@db.example.org/a"));
    assert!(warns("postgres://u@db.example.org/a?sslmode=require"));
    assert!(!warns("postgres://u@db.example.org/a?sslmode=verify-full"));
    assert!(!warns("postgres://u@localhost/a"));
    assert!(!warns("postgres://u@[::1]/a"));
    assert!(!warns("postgres://u@%2Frun%2Fpostgresql/a"));
    assert!(!warns("postgres:///a?host=/run/postgresql"));
    assert!(warns("postgres://localhost/a?host=db.example.org"));
    assert!(warns("host=db.example.org"));
}
