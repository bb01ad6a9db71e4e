//! The dashboard and the alert rules name what there is.

use std::{collections::BTreeSet, fs, path::Path};

use super::{get, listening};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)).unwrap()
}

/// Every word that is a metric's name.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("backscroll_")).collect()
}

/// Every value of a key, however deep.
fn values<'a>(json: &'a serde_json::Value, key: &str, found: &mut Vec<&'a str>) {
    match json {
        serde_json::Value::Object(object) => {
            found.extend(object.get(key).and_then(serde_json::Value::as_str));
            object.values().for_each(|value| values(value, key, found));
        }
        serde_json::Value::Array(array) => array.iter().for_each(|value| values(value, key, found)),
        _ => {}
    }
}

#[tokio::test]
async fn dashboard_and_alerts_name_what_there_is() {
    let (stage, address) = listening().await;
    let room = stage.room(25);
    let daemon = stage.followed(&room).await;
    let (_, served) = get(address, "/metrics").unwrap();
    let samples = served.lines().filter(|line| !line.starts_with('#'));
    let served: BTreeSet<_> = samples.filter_map(|line| line.split(['{', ' ']).next()).collect();

    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana/backscroll.json")).unwrap();
    let (mut expressions, mut queries) = (Vec::new(), Vec::new());
    values(&dashboard, "expr", &mut expressions);
    values(&dashboard, "rawSql", &mut queries);
    let alerts = read("prometheus/alerts.yml");
    for (place, text) in [("the dashboard", expressions.join("\n")), ("the alerts", alerts)] {
        let named = metrics_in(&text);
        assert!(named.len() >= 5, "{place}: {named:?}");
        let unknown: Vec<_> = named.difference(&served).collect();
        assert!(unknown.is_empty(), "{place} names {unknown:?}; there is {served:?}");
    }
    assert!(queries.len() >= 3, "{queries:?}");
    for query in queries {
        assert!(!query.contains("archive."), "readers see the views only: {query}");
        // As Grafana fills them in.
        let query = query.replace("$__timeFrom()", "'2000-01-01T00:00:00Z'");
        stage.database.rows(&query.replace("$__timeTo()", "'2100-01-01T00:00:00Z'")).await;
    }
    daemon.stop().await;
}
