//! What is refused, in which words.

use super::*;

#[test]
fn an_unknown_setting_is_refused_with_place_and_nearest_name() {
    assert_eq!(
        refused("[homeserver]\nulr = 'x'\n"),
        "backscroll.toml, line 2: unknown setting `homeserver.ulr`, did you mean `homeserver.url`?"
    );
    assert_eq!(
        refused("[homesever]\nurl = 'x'\n\n[media]\nmirror = 1\n"),
        "backscroll.toml, line 1: unknown setting `homesever`, did you mean `homeserver`?\n\
         backscroll.toml, line 4: unknown setting `media`; `backscroll config example` lists them all"
    );
    assert_eq!(
        refused("[[rooms.room]]\nid = '!a'\n[[rooms.room]]\nid = '!b'\nprevbatch = 'x'"),
        "backscroll.toml, line 5: unknown setting `rooms.room.1.prevbatch`, did you mean `prev_batch`?"
    );
    assert!(refused("\"a\\u001b[2J\" = 1").contains("`a\\u{1b}[2J`"));
    assert_eq!(
        load_env([("BACKSCROLL_HOMESERVER__ULR", "x")]).unwrap_err(),
        "environment variable BACKSCROLL_HOMESERVER__ULR: unknown setting, \
         did you mean `BACKSCROLL_HOMESERVER__URL`?"
    );
    let typo = load_env([("BACKSCROLL_DATABASE_URL", "postgres://u:canary@h/d")]).unwrap_err();
    assert!(typo.ends_with("did you mean `BACKSCROLL_DATABASE__URL`?"), "{typo}");
    assert!(!typo.contains("canary"));
}

#[test]
fn a_wrong_type_is_reported_with_place_found_and_expected() {
    let cases = [
        (
            "[backfill]\nconcurrency = \"many\"",
            "backscroll.toml, line 2: `backfill.concurrency`: found `many`, expected a whole number",
        ),
        (
            "[backfill]\nconcurrency = -1",
            "backscroll.toml, line 2: `backfill.concurrency`: found the number -1, expected a whole number",
        ),
        (
            "[homeserver]\nsync_timeout = 30",
            "backscroll.toml, line 2: `homeserver.sync_timeout`: found the number 30, \
             expected a duration such as \"500ms\", \"60s\", \"10m\", \"1h\" or \"7d\"",
        ),
        (
            "[backfill]\nrewalk_after = [\"1h\",\n \"soon\"]",
            "backscroll.toml, line 3: `backfill.rewalk_after.1`: found `soon`, \
             expected a duration such as \"500ms\", \"60s\", \"10m\", \"1h\" or \"7d\"",
        ),
        (
            "[redactions]\npolicy = 'keep'",
            "backscroll.toml, line 2: `redactions.policy`: found `keep`, expected one of `honour`, `retain`",
        ),
        (
            "[rooms]\ninclude = '#a:hs'",
            "backscroll.toml, line 2: `rooms.include`: found `#a:hs`, expected a list",
        ),
        (
            "homeserver = 'syt_canary'",
            "backscroll.toml, line 1: `homeserver`: found a single value, expected the section [homeserver]",
        ),
        (
            "[[rooms.room]]\nprev_batch = 'x'",
            "backscroll.toml, line 1: `rooms.room.0.id`: found nothing, expected a value",
        ),
        (
            "rooms.room = ['!a']",
            "backscroll.toml, line 1: `rooms.room.0`: found `!a`, expected a table with `id`",
        ),
        (
            "[database]\nurl = 12345",
            "backscroll.toml, line 2: `database.url`: found a value that is not shown, \
             expected a text in quotes",
        ),
        (
            "[http]\nlisten = 1979-05-27",
            "backscroll.toml, line 2: `http.listen`: found a table, expected a text in quotes",
        ),
    ];
    for (toml, expected) in cases {
        assert_eq!(refused(toml), expected);
    }
    let variable = |name, value| load_env([(name, value)]).unwrap_err();
    assert_eq!(
        variable("BACKSCROLL_BACKFILL__PAGE_SIZE", "ma\u{1b}ny"),
        "environment variable BACKSCROLL_BACKFILL__PAGE_SIZE: `backfill.page_size`: \
         found `ma\\u{1b}ny`, expected a whole number"
    );
    assert_eq!(
        variable("BACKSCROLL_BACKFILL__RECHECK_AFTER", "1 minute"),
        "environment variable BACKSCROLL_BACKFILL__RECHECK_AFTER: `backfill.recheck_after`: \
         found `1 minute`, expected a duration such as \"500ms\", \"60s\", \"10m\", \"1h\" or \"7d\""
    );
    assert!(variable("BACKSCROLL_ROOMS__INCLUDE", "[#a:hs]").contains("expected a list such as"));
    assert!(variable("BACKSCROLL_LOG__FORMAT", "xml").contains("expected one of `auto`, `pretty`, `json`"));
}

#[test]
fn impossible_values_are_reported_with_place_and_reason() {
    let cases = [
        ("[backfill]\npage_size = 1001", "line 2: `backfill.page_size` must be from 1 to 1000"),
        ("[backfill]\npage_size = 70000", "must be from 1 to 1000"),
        ("[backfill]\nconcurrency = 0", "must be from 1 to"),
        ("[homeserver]\nsync_timeout = '0s'", "must be longer than 0s and at most 10m"),
        ("[homeserver]\nsync_timeout = '1d'", "must be longer than 0s and at most 10m"),
        ("[rooms]\nexclude = ['general']", "did you mean `#general`?"),
        ("[[rooms.room]]\nid = '#a:hs'", "line 2: `rooms.room.0.id` is an alias"),
        ("[[rooms.room]]\nid = 'a:hs'", "must be a room id"),
        ("[[rooms.room]]\nid = '!a'\nprev_batch = ''", "line 3: `rooms.room.0.prev_batch` is empty"),
        ("[[rooms.room]]\nid = '!a'\n[[rooms.room]]\nid = '!a'", "line 4: `rooms.room.1.id` names a room"),
        ("[http]\nlisten = 'localhost'", "such as `127.0.0.1:9464`"),
        ("[log]\nlevel = 'loud'", "line 2: `log.level`"),
        ("[homeserver]\npassword_file = 'p'", "needs homeserver.user"),
        ("[homeserver]\naccess_token_file = ''", "is empty"),
    ];
    for (toml, expected) in cases {
        let error = refused(toml);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn https_is_required_but_on_this_machine() {
    let url = |url: &str, more: &str| load(&format!("[homeserver]\nurl = '{url}'\n{more}"));
    for good in [
        "https://matrix.example.org",
        "https://matrix.example.org:8448/prefix/",
        "http://localhost:8008",
        "http://127.0.0.1:8008",
        "http://127.3.2.1",
        "http://[::1]:8008",
        "http://hs.localhost",
    ] {
        let config = url(good, "").unwrap();
        assert!(config.homeserver.url().is_ok() && config.warnings.is_empty(), "{good}");
    }
    for bad in ["http://matrix.example.org", "http://127.0.0.1.example.org", "http://10.0.0.1"] {
        assert!(url(bad, "").unwrap_err().contains("must be https"), "{bad}");
        let allowed = url(bad, "allow_insecure_http = true").unwrap();
        assert!(allowed.warnings[0].contains("is not https"));
    }
    for bad in ["matrix.example.org", "example.org:8448", "ftp://h", "mailto:a@b", "", "https://"] {
        assert!(url(bad, "").unwrap_err().contains("must be a URL such as"), "{bad}");
    }
    let user = url("https://u:canary@h", "").unwrap_err();
    assert!(user.contains("must not contain a user or password") && !user.contains("canary"));
    assert!(url("https://h/?a=b", "").is_err());
}
