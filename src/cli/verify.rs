//! `backscroll verify`

use std::{
    cell::Cell,
    fmt::Write as _,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use ruma::{OwnedRoomId, OwnedRoomOrAliasId};

use super::progress::Progress;
use crate::{
    Error, Exit,
    archive::{
        Archive, Span, Writer,
        verification::{DERIVED, Finding, VerifiedRoom},
    },
    backfill::operator,
    config::Config,
    context::{self, RetryPolicy},
    daemon::{self, Store},
    matrix::Identity,
    sync,
    telemetry::Telemetry,
    text::{Canvas, count, duration, escape, print, thousands},
    verify::{
        self, Level, Report, Signatures, Verdict, Verifier,
        seal::manifest::{self, Manifest},
    },
};

/// Prove that the archive is whole, or find what is wrong with it.
///
/// First the archive is compared with itself: each event with its hash, and the tables with each other. Then each room is
/// compared with what the homeserver lists and with its state: what is missing, what differs, and what is only here. If
/// the homeserver gives events as they were signed (Synapse does), their ids and hashes are computed anew, and every
/// event must have its ancestors up to the room's creation.
///
/// Nothing is changed without --repair, and nothing is ever deleted. A Backscroll may run beside it. Exit code 0: nothing
/// is wrong; 1: something is wrong; 2: not everything could be compared.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Verify {
    /// Rooms: ids or aliases [default: all]
    rooms: Vec<OwnedRoomOrAliasId>,
    /// Compare the archive only with itself; the homeserver is not asked
    #[arg(long)]
    offline: bool,
    /// Also check the signatures, with the keys of the senders' servers
    #[arg(long, conflicts_with = "offline")]
    signatures: bool,
    /// Fetch what is missing and the current state, derive anew what follows from the events, and verify again; no other
    /// Backscroll may write meanwhile
    #[arg(long, conflicts_with = "offline")]
    repair: bool,
    /// Only events sent at this time or later, such as 2026-01-31; what the tables say of the room is compared anyhow
    #[arg(long, value_name = "TIME", conflicts_with = "manifest")]
    since: Option<String>,
    /// Compare the archive with a manifest of `backscroll seal --output` or `backscroll export`, and with nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["offline", "signatures", "repair"])]
    manifest: Option<PathBuf>,
    /// Print a JSON object, for scripts
    #[arg(long)]
    json: bool,
}

/// How often what is missing is fetched.
const ROUNDS: usize = 3;

impl Verify {
    pub(super) async fn run(self, config: Config, telemetry: &Telemetry) -> anyhow::Result<Exit> {
        let mut reports = self.verify(&config).await?;
        for _ in 0..if self.repair { ROUNDS } else { 0 } {
            let rooms: Vec<Repair> = reports.iter().filter_map(Repair::of).collect();
            if rooms.is_empty() {
                break;
            }
            eprintln!("backscroll: repairing {}", count(rooms.len() as i128, "room"));
            repair(config.clone(), telemetry, &rooms).await?;
            reports = self.verify(&config).await?;
        }
        if self.repair {
            record(&config, &reports).await?;
        }
        if self.json {
            print(&json(&reports)?)?;
        } else {
            print(&page(&reports, Canvas::stdout()))?;
        }
        Ok(exit(&reports))
    }

    async fn verify(&self, config: &Config) -> anyhow::Result<Vec<Report>> {
        let store = Store::open_archive(config).await?;
        let done = self.verify_archive(config, &store.archive).await;
        store.close().await?;
        done
    }

    async fn verify_archive(&self, config: &Config, archive: &Archive) -> anyhow::Result<Vec<Report>> {
        if let Some(file) = &self.manifest {
            return self.compare_with(archive, file).await;
        }
        let rooms = self.rooms(archive).await?;
        let since = archive.milliseconds(self.since.as_deref()).await.map_err(Error::from)?;
        let progress = Progress::new();
        let total: i64 = rooms.iter().map(|room| room.event_count).sum();
        progress.begin("the archive by itself", total);
        let all = self.rooms.is_empty();
        let checked = |checked| progress.show(checked);
        let mut reports = Box::pin(verify::offline(archive, &rooms, all, since, checked)).await?;
        if !self.offline {
            progress.begin("the homeserver's list", total);
            let signatures = self.signatures.then(Signatures::default);
            let writer = if self.repair { Some(archive.writer(config.redactions).await?) } else { None };
            let how = How { signatures, since, writer: writer.as_ref() };
            let compared = with_homeserver(config, archive, &rooms, reports, how, &progress).await;
            if let Some(writer) = writer {
                writer.release().await;
            }
            reports = compared?;
        }
        progress.finish();
        Ok(reports)
    }

    async fn compare_with(&self, archive: &Archive, file: &Path) -> anyhow::Result<Vec<Report>> {
        let mut room_ids = Vec::new();
        for room in &self.rooms {
            room_ids.push(super::archived_room(archive, room).await?);
        }
        let name = escape(&file.display().to_string()).into_owned();
        let opened = File::open(file).with_context(|| format!("failed to open {name}"))?;
        let compared = async {
            let mut manifest = Manifest::open(BufReader::new(opened))?;
            manifest::compare(archive, &mut manifest, &room_ids).await
        };
        compared.await.with_context(|| name.clone())
    }

    async fn rooms(&self, archive: &Archive) -> Result<Vec<VerifiedRoom>, Error> {
        let mut room_ids = Vec::new();
        for room in &self.rooms {
            room_ids.push(super::archived_room(archive, room).await?);
        }
        Ok(archive.rooms_to_verify(&room_ids).await?)
    }
}

/// What can be repaired in a room.
struct Repair {
    room_id: OwnedRoomId,
    /// The homeserver has events that the archive lacks.
    is_lacking: bool,
    /// The current state is wrong, or may be.
    has_wrong_state: bool,
}

impl Repair {
    /// `None`: nothing can be repaired.
    fn of(report: &Report) -> Option<Self> {
        let has =
            |kinds: &[&str]| report.findings.iter().any(|finding| kinds.contains(&finding.kind.as_str()));
        let (is_lacking, has_wrong_state) = (has(&verify::LACKING), has(&verify::STATE));
        let room_id = OwnedRoomId::try_from(report.room_id.as_str()).ok()?;
        let can_repair = is_lacking || has_wrong_state || has(&DERIVED);
        can_repair.then_some(Self { room_id, is_lacking, has_wrong_state })
    }
}

/// Walks the rooms that lack events from their newest events down, as `backscroll backfill` does: what the archive has
/// stays as it is, and what it lacks gets its place. A wrong state becomes the homeserver's. What follows from the events is
/// derived anew, after the walks of the round before.
async fn repair(config: Config, telemetry: &Telemetry, rooms: &[Repair]) -> anyhow::Result<()> {
    let begin = async |context: &context::Context| {
        let wrong = rooms.iter().filter(|room| room.has_wrong_state);
        let wrong: Vec<&str> = wrong.map(|room| room.room_id.as_str()).collect();
        Box::pin(sync::repair_states(context, &wrong)).await?;
        for room in rooms {
            context.writer.derive_anew(room.room_id.as_str()).await?;
            if room.is_lacking {
                operator::open(context, (&*room.room_id).into(), Span { from: None, to: None }).await?;
            }
        }
        Ok(())
    };
    daemon::walk(config, telemetry, super::shutdown_on_signal()?, begin).await
}

/// Keeps the results in the archive, for which it must be the writer.
async fn record(config: &Config, reports: &[Report]) -> anyhow::Result<()> {
    let store = Store::open_archive(config).await?;
    let recorded: Result<(), Error> = async {
        let writer = store.archive.writer(config.redactions).await?;
        for report in reports {
            writer.record_verification(&report.recorded()).await?;
        }
        writer.release().await;
        Ok(())
    }
    .await;
    store.close().await?;
    Ok(recorded?)
}

/// How rooms are compared with the homeserver.
struct How<'w> {
    /// `None`: the signatures are not checked.
    signatures: Option<Signatures>,
    /// From when on, in milliseconds since 1970.
    since: Option<i64>,
    /// Records what is found out.
    writer: Option<&'w Writer>,
}

async fn with_homeserver(
    config: &Config,
    archive: &Archive,
    rooms: &[VerifiedRoom],
    reports: Vec<Report>,
    how: How<'_>,
    shown: &Progress,
) -> anyhow::Result<Vec<Report>> {
    let How { mut signatures, since, writer } = how;
    let account = archive.account().await?;
    let device_id = account.and_then(|account| account.device_id);
    let client = Identity::new(&config.homeserver, device_id).await.map_err(Error::from)?;
    let verifier = Verifier {
        archive,
        client: &client,
        keeper: writer.filter(|_| config.keep_evidence),
        recorder: writer,
        since,
        retries: RetryPolicy::new(config.homeserver.patience, true),
        page_size: config.backfill.page_size.into(),
    };
    let done = Cell::new(0);
    let mut compared = Vec::new();
    let mut reports = reports.into_iter();
    for (room, report) in rooms.iter().zip(reports.by_ref()) {
        let progress = |listed: i64| shown.show(u64::try_from(done.get() + listed).unwrap_or_default());
        let report = Box::pin(verify::online(&verifier, room, report, signatures.as_mut(), progress)).await?;
        done.set(done.get() + report.listed_count);
        compared.push(report);
    }
    // Of rooms that the archive does not know there is nothing to compare.
    compared.extend(reports);
    Ok(compared)
}

fn exit(reports: &[Report]) -> Exit {
    let has = |verdict| reports.iter().any(|report| report.verdict == verdict);
    if has(Verdict::Findings) {
        Exit::No
    } else if has(Verdict::Unclear) {
        Exit::Unclear
    } else {
        Exit::Success
    }
}

fn json(reports: &[Report]) -> Result<String, serde_json::Error> {
    let verdict = match exit(reports) {
        Exit::No => "findings",
        Exit::Unclear => "unclear",
        _ => "good",
    };
    let all = serde_json::json!({ "verdict": verdict, "rooms": reports });
    Ok(serde_json::to_string_pretty(&all)? + "\n")
}

fn page(reports: &[Report], canvas: Canvas) -> String {
    let mut page = String::new();
    for report in reports {
        page.push_str(&section(report, canvas));
    }
    page.push_str(&summary(reports, canvas));
    page
}

/// A room: its name, a sentence, the findings and what restricts the result.
fn section(report: &Report, canvas: Canvas) -> String {
    let mark = match report.verdict {
        Verdict::Proved | Verdict::Agrees | Verdict::Consistent => canvas.paint("32", "✓"),
        Verdict::Findings => canvas.paint("31", "✗"),
        Verdict::Unclear => canvas.paint("33", "?"),
    };
    let mut section = heading(&mark, report.name.as_deref(), &report.room_id, canvas);
    section.push_str(&canvas.hang("  ", 2, &sentence(report)));
    section.push_str(&findings(&report.findings, canvas));
    let more = report.finding_count - report.findings.len();
    if more > 0 {
        let _ = writeln!(section, "  and {} more", thousands(more as i128));
    }
    for note in &report.notes {
        section.push_str(&canvas.hang("  · ", 4, &escape(note)));
    }
    section.push('\n');
    section
}

/// A line with the name and the id of a room.
pub(super) fn heading(mark: &str, name: Option<&str>, room_id: &str, canvas: Canvas) -> String {
    let bold = canvas.paint("1", &escape(name.unwrap_or(room_id)));
    match name {
        Some(_) => format!("{mark} {bold}  {}\n", canvas.paint("2", &escape(room_id))),
        None => format!("{mark} {bold}\n"),
    }
}

/// A line for each.
pub(super) fn findings(findings: &[Finding], canvas: Canvas) -> String {
    let mut lines = String::new();
    for finding in findings {
        let mut line = finding.kind.clone();
        for more in [&finding.event_id, &finding.detail].into_iter().flatten() {
            line.push_str("  ");
            line.push_str(&escape(more));
        }
        let _ = writeln!(lines, "  {} {line}", canvas.paint("31", "✗"));
    }
    lines
}

fn sentence(report: &Report) -> String {
    let (archived, listed) = (count(report.event_count, "event"), count(report.listed_count, "event"));
    match (report.verdict, report.level) {
        (Verdict::Proved, _) => format!(
            "Proved: the homeserver lists {listed}, and each is archived as it was signed, with all its ancestors up to \
             the room's creation."
        ),
        (Verdict::Agrees, Level::Manifest) => {
            format!("Agrees: the manifest has {listed}, and each is archived as it says.")
        }
        (Verdict::Agrees, _) => {
            format!("Agrees: the homeserver lists {listed}, and each is archived as it is there.")
        }
        (Verdict::Consistent, _) => {
            format!("Consistent: {archived}, each as it was stored. The homeserver was not asked.")
        }
        (Verdict::Unclear, _) => {
            format!("Unclear: {archived} agree with each other, but not all could be compared.")
        }
        (Verdict::Findings, Level::Offline) => {
            format!("Wrong: {} in {archived}.", count(report.finding_count as i128, "finding"))
        }
        (Verdict::Findings, Level::Manifest) => format!(
            "Wrong: {}; {archived} are archived, and the manifest has {listed}.",
            count(report.finding_count as i128, "finding")
        ),
        (Verdict::Findings, _) => format!(
            "Wrong: {}; {archived} are archived, and the homeserver lists {listed}.",
            count(report.finding_count as i128, "finding")
        ),
    }
}

fn summary(reports: &[Report], canvas: Canvas) -> String {
    let with = |verdict| reports.iter().filter(|report| report.verdict == verdict).count();
    let rooms = |number: usize| count(number as i128, "room");
    let parts: Vec<String> = [
        (Verdict::Findings, "with findings"),
        (Verdict::Unclear, "unclear"),
        (Verdict::Proved, "proved"),
        (Verdict::Agrees, "agreeing"),
        (Verdict::Consistent, "consistent"),
    ]
    .into_iter()
    .filter(|(verdict, _)| with(*verdict) > 0)
    .map(|(verdict, text)| format!("{} {text}", rooms(with(verdict))))
    .collect();
    let seconds: f64 = reports.iter().map(|report| report.seconds).fold(0.0, f64::max);
    let text = if parts.is_empty() { "no room is archived".to_owned() } else { parts.join(", ") };
    let took = duration(crate::text::whole(seconds));
    format!("{} {}\n", canvas.paint("1", &format!("{text}.")), canvas.paint("2", &took))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: Option<&str>) -> VerifiedRoom {
        VerifiedRoom {
            room_id: "!r:hs".to_owned(),
            name: name.map(str::to_owned),
            room_version: Some("11".to_owned()),
            event_count: 12_408,
            history_state: "complete".to_owned(),
            unfinished: 0,
            may_hide_history: false,
        }
    }

    #[test]
    fn a_page_says_what_was_proved_and_what_is_wrong() {
        let mut proved = Report::new(&room(Some("Gar\u{1b}[2Jden")));
        (proved.verdict, proved.level, proved.listed_count) = (Verdict::Proved, Level::Graph, 12_408);
        let mut wrong = Report::new(&room(None));
        (wrong.verdict, wrong.level, wrong.listed_count) = (Verdict::Findings, Level::Walk, 12_409);
        wrong.finding_count = 1;
        wrong.findings.push(Finding::new("event missing", "$e", None));
        wrong.notes.push("the account may not see the room's beginning".to_owned());
        let page = page(&[proved, wrong], Canvas { columns: 100, colour: false });
        assert_eq!(
            page,
            "✓ Gar\\u{1b}[2Jden  !r:hs\n  \
             Proved: the homeserver lists 12,408 events, and each is archived as it was signed, with all its\n  \
             ancestors up to the room's creation.\n\n\
             ✗ !r:hs\n  \
             Wrong: 1 finding; 12,408 events are archived, and the homeserver lists 12,409 events.\n  \
             ✗ event missing  $e\n  \
             · the account may not see the room's beginning\n\n\
             1 room with findings, 1 room proved. 0s\n"
        );
    }
}
