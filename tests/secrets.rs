//! Secrets in the database's URL, in the environment of children, and on the way to the homeserver.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::net::TcpListener;

use crate::support::{daemon::Backscroll, homeserver::Homeserver, stage::Stage};

const CANARY: &str = "canary-7f3a";
/// What libraries say, too.
const EVERYTHING: &str = "trace,hyper=trace,hyper_util=trace,reqwest=trace,sqlx=trace,tokio=trace";

/// Every form in which somebody might write a password, also where it cannot be read or is not meant to be one.
const FORMS: [&str; 24] = [
    "postgres://u:CANARY@127.0.0.1:1/d",
    "postgres://u:x#CANARY@127.0.0.1:1/d",
    "postgres://u:1/CANARY@127.0.0.1:1/d",
    "postgres://u:1?CANARY@127.0.0.1:1/d",
    "postgres://u:1?password=CANARY@127.0.0.1:1/d",
    "postgres://u:CANARY@x@127.0.0.1:1/d",
    "postgres://u:CANARY:x@127.0.0.1:1/d",
    "postgres://u:CANARY%@127.0.0.1:1/d",
    "postgres://u:CANARY",
    "postgres://127.0.0.1:1/d?user=u&password=CANARY",
    "postgres://127.0.0.1:1/d?user=u&PASSWORD=CANARY",
    "postgres://127.0.0.1:1/d?passwd=CANARY",
    "postgres://127.0.0.1:1/d?sslpassword=CANARY",
    "postgres://127.0.0.1:1/d?password=x&CANARY",
    "postgres://127.0.0.1:1/d?password=x&CANARY=y",
    "postgres://u:CANARY@[::1]:1/d",
    "postgres://u:CANARY@127.0.0.1:1,127.0.0.1:2/d",
    "postgres://u:CANARY@%2Fnowhere/d",
    "postgres://u:CANARY@/d?host=/nowhere",
    "host=127.0.0.1 port=1 password=CANARY",
    "host=127.0.0.1 port=1 password='CANARY x'",
    "host=127.0.0.1 port=1 password='CANARY",
    "postgresql+asyncpg://u:CANARY@127.0.0.1:1/d",
    "CANARY",
];

#[tokio::test]
async fn no_form_of_a_database_url_lets_a_password_out() {
    let backscroll =
        Backscroll::new("http://127.0.0.1:1", "token", None).set("BACKSCROLL_LOG__LEVEL", EVERYTHING);
    let mut backscroll = backscroll;
    for form in FORMS {
        let form = form.replace("CANARY", CANARY);
        for name in ["BACKSCROLL_DATABASE__URL", "BACKSCROLL_DATABASE__URL_FILE"] {
            // Who writes the URL where its file's name belongs.
            backscroll =
                backscroll.set("BACKSCROLL_DATABASE__URL", "").set("BACKSCROLL_DATABASE__URL_FILE", "");
            backscroll = backscroll.set(name, &form);
            if name.ends_with("FILE") && form == CANARY {
                continue;
            }
            for arguments in
                [&["check"][..], &["config", "show"], &["migrate"], &["psql", "--", "-c", "select 1"]]
            {
                let outcome = backscroll.run(arguments).await;
                let said = outcome.stdout + &outcome.stderr;
                let line = said.lines().find(|line| line.contains(CANARY));
                assert_eq!(line, None, "{arguments:?} {form}");
            }
        }
    }
}

/// A program that writes down what it was given.
fn fake_psql(backscroll: &Backscroll) -> (String, std::path::PathBuf) {
    let bin = backscroll.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let noted = backscroll.path().join("noted");
    let script = format!(
        "#!/bin/sh\ntr '\\0' '\\n' < /proc/$$/cmdline > {0}\n\
         echo ---- >> {0}\ntr '\\0' '\\n' < /proc/$$/environ >> {0}\n",
        noted.display()
    );
    fs::write(bin.join("psql"), script).unwrap();
    fs::set_permissions(bin.join("psql"), fs::Permissions::from_mode(0o755)).unwrap();
    (format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()), noted)
}

#[tokio::test]
async fn psql_gets_the_password_and_no_other_secret() {
    let stage = Stage::new().await;
    let (path, noted) = fake_psql(&stage.backscroll);
    let url = format!("{}&password={CANARY}&statement-cache-capacity=10", stage.database.url());
    let stage = stage.set("database.url", &url);
    let backscroll = stage
        .backscroll
        .set("PATH", &path)
        .set("BACKSCROLL_HOMESERVER__ACCESS_TOKEN_FILE", "")
        .set("BACKSCROLL_HOMESERVER__ACCESS_TOKEN", "syt_other_canary")
        .set("SOMEBODYS_SECRET", "canary-other")
        .set("LC_ALL", "C.UTF-8")
        .set("PAGER", "cat");
    let outcome = backscroll.run(&["psql", "--", "-x"]).await;
    assert!(outcome.status.success(), "{outcome:?}");
    let noted = fs::read_to_string(noted).unwrap();
    let (arguments, environment) = noted.split_once("----\n").unwrap();
    assert!(!arguments.contains("canary") && arguments.ends_with("\n-x\n"), "{arguments}");
    assert!(!arguments.contains("statement-cache"), "psql does not know it: {arguments}");
    let secrets: Vec<_> = environment.lines().filter(|line| line.contains("canary")).collect();
    assert_eq!(secrets, [format!("PGPASSWORD={CANARY}")]);
    for kept in ["LC_ALL=C.UTF-8", "PAGER=cat"] {
        assert!(environment.lines().any(|line| line == kept), "{kept} in {environment}");
    }
}

#[tokio::test]
async fn the_private_server_inherits_no_secret() {
    let server = Homeserver::start().await;
    let backscroll = Backscroll::new(server.url(), &server.access_token(), None)
        .set("BACKSCROLL_HOMESERVER__ACCESS_TOKEN_FILE", "")
        .set("BACKSCROLL_HOMESERVER__ACCESS_TOKEN", &server.access_token())
        .set("PGPASSWORD", CANARY);
    let mut daemon = backscroll.start(&["run"]);
    let pid_file = backscroll.path().join("data/postgres/postmaster.pid");
    let first_line = || fs::read_to_string(&pid_file).ok()?.lines().next().map(str::to_owned);
    daemon
        .until("the server runs", async || first_line().is_some_and(|pid| pid.parse::<u32>().is_ok()))
        .await;
    let process = format!("/proc/{}", first_line().unwrap());
    for file in ["environ", "cmdline"] {
        let text = String::from_utf8_lossy(&fs::read(format!("{process}/{file}")).unwrap()).into_owned();
        assert!(!text.is_empty(), "{file}");
        assert!(!text.contains(CANARY) && !text.contains(&server.access_token()), "{text}");
    }
    daemon.stop().await;
}

/// A proxy from the environment would see the access token of a plain-http homeserver on this machine.
#[tokio::test]
async fn a_proxy_sees_no_plain_http() {
    let stage = Stage::new().await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let asked = AtomicUsize::new(0);
    let count = async {
        loop {
            proxy.accept().await.unwrap();
            asked.fetch_add(1, Ordering::Relaxed);
        }
    };
    let mut backscroll = stage.backscroll;
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        backscroll = backscroll.set(name, &address);
    }
    let outcome = tokio::select! {
        () = count => unreachable!(),
        outcome = backscroll.run(&["check"]) => outcome,
    };
    assert!(outcome.status.success(), "{outcome:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}
