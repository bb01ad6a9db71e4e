//! Start-up and shutdown.
//!
//! [`run`] opens the database, migrates it, takes the writer's lease, logs in to the homeserver and then runs the
//! forward loop ([`sync`]) and the backward loop ([`backfill`]) until shutdown. [`walk`] runs only walks, for
//! `backscroll backfill`.

mod decrypt;
mod fill_search;
mod forget_retained;
mod key_backup;
mod no_archive;
mod rebuild_indexes;
mod stalled;
mod store;
mod verify_rooms;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{key_backup::Opener as KeyBackupOpener, no_archive::in_database};
pub use self::{no_archive::NoArchive, stalled::Stalled, store::Store};
use crate::{
    Error,
    archive::{
        Account, Archive, OwnDevice, Writer,
        requirements::{self, Unmet},
    },
    backfill,
    backoff::Backoff,
    config::Config,
    context::{Context, RetryPolicy},
    matrix::{self, Identity},
    postgres,
    schedule::{active_rooms::ActiveRooms, spare_pages::SparePages, write_slots::WriteSlots},
    service::{Services, health::Health},
    sync,
    telemetry::{
        Progress, Telemetry,
        pulse::{self, Homeserver},
    },
};

/// How often progress is shown.
const TICK: Duration = Duration::from_secs(1);
/// How often to check whether a transaction waits for a lock.
const LOOK_FOR_WAITS: Duration = Duration::from_secs(2);
/// Notifications within this time count as one.
const HEARD_AS_ONE: Duration = Duration::from_millis(250);
/// How long the work under way may take after the signal to stop. systemd and Docker kill a process that takes much
/// longer.
const LAST_CALL: Duration = Duration::from_millis(3500);

/// Runs the daemon until shutdown. With `once`: until one `/sync` response is stored and every due walk has ended.
///
/// # Errors
/// An error that a retry cannot fix.
pub async fn run(
    config: Config,
    telemetry: &Telemetry,
    once: bool,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let work = async |context: Arc<Context>, account: Account| {
        let user_id = account.user_id.clone();
        // If one loop fails, it cancels the other, which first finishes its transaction.
        let sync_finished = CancellationToken::new();
        let forward = async {
            // Boxed because the future is large.
            let followed = if once {
                Box::pin(sync::once(&context, account)).await
            } else {
                Box::pin(sync::follow(&context, account)).await
            };
            sync_finished.cancel();
            followed.inspect_err(|_| context.shutdown.cancel())
        };
        let backward = async {
            if once {
                // The response is stored first. Only the comparison of states runs beside the walks.
                pulse::resting();
                tokio::select! {
                    () = context.walks_opened.notified() => {}
                    () = sync_finished.cancelled() => {}
                }
            }
            let walked = backfill::run(&context, sync_finished.cancelled()).await;
            walked.inspect_err(|_| context.shutdown.cancel())
        };
        let health = &context.health;
        let sweep = async {
            let swept = Box::pin(forget_retained::forget(&context)).await;
            swept.inspect_err(|_| context.shutdown.cancel())
        };
        let loops_ended = CancellationToken::new();
        let loops = async {
            let (forward, backward, swept) =
                tokio::join!(health.watch("following", forward), health.watch("walking", backward), sweep);
            loops_ended.cancel();
            forward.and(backward).and(swept)
        };
        let backup_read = CancellationToken::new();
        let backup = async {
            key_backup::follow(&context, &user_id).await;
            backup_read.cancel();
        };
        let all_decrypted = CancellationToken::new();
        let decryption = async {
            let all_there = async {
                tokio::join!(loops_ended.cancelled(), backup_read.cancelled());
            };
            let decrypted = Box::pin(decrypt::decrypt(&context, all_there)).await;
            all_decrypted.cancel();
            decrypted.inspect_err(|_| context.shutdown.cancel())
        };
        let search = async {
            let filled = Box::pin(fill_search::fill(&context, all_decrypted.cancelled())).await;
            filled.inspect_err(|_| context.shutdown.cancel())
        };
        let maintenance = async {
            if once {
                return Ok(());
            }
            let verified = Box::pin(verify_rooms::verify(&context));
            let rebuilt = Box::pin(rebuild_indexes::rebuild(&context));
            tokio::try_join!(verified, rebuilt).map(|_| ()).inspect_err(|_| context.shutdown.cancel())
        };
        // Boxed because the futures are large.
        let (loops, (), decryption, search, maintenance) = tokio::join!(
            Box::pin(loops),
            Box::pin(backup),
            Box::pin(decryption),
            Box::pin(search),
            Box::pin(maintenance)
        );
        loops.and(decryption).and(search).and(maintenance)?;
        if once && !context.shutdown.is_cancelled() {
            Stalled::must_be_none(context.writer.archive()).await?;
        }
        Ok(())
    };
    // Boxed because the future is large.
    Box::pin(with_context(config, telemetry, once, shutdown, work)).await
}

/// Runs `first`, which opens a walk or does a command's work. Then runs every due walk that does not
/// [depend on `/sync`](Context::sync_is_current). Does not sync.
///
/// # Errors
/// An error that a retry cannot fix.
pub async fn walk(
    config: Config,
    telemetry: &Telemetry,
    shutdown: CancellationToken,
    first: impl AsyncFnOnce(&Context) -> Result<(), Error>,
) -> anyhow::Result<()> {
    let work = async |context: Arc<Context>, _| {
        first(&context).await?;
        backfill::run(&context, std::future::ready(())).await?;
        Box::pin(decrypt::decrypt(&context, std::future::ready(()))).await?;
        Ok(Box::pin(fill_search::fill(&context, std::future::ready(()))).await?)
    };
    // Boxed because the future is large.
    Box::pin(with_context(config, telemetry, true, shutdown, work)).await
}

/// Starts all parts in order, runs `work`, and stops all parts, also after an error.
async fn with_context(
    config: Config,
    telemetry: &Telemetry,
    once: bool,
    shutdown: CancellationToken,
    work: impl AsyncFnOnce(Arc<Context>, Account) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // Check these settings first: without them, no database should be created.
    config.homeserver.url()?;
    config.homeserver.credentials()?;
    let progress = telemetry.progress();
    let health = Arc::new(Health::default());
    // A single run beside the daemon would find the address in use.
    let listen = config.http_listen.filter(|_| !once);
    let services = Services::start(listen, &health, &progress, &shutdown).await?;
    let retries = RetryPolicy::new(config.homeserver.patience, once);
    let up = async {
        let store = open_patiently(&config, retries).await?;
        health.opened(&store.archive);
        match connect(&store.archive, &config, retries, &health).await {
            Ok(connected) => Ok((store, connected)),
            Err(error) => {
                store.close().await?;
                Err(error)
            }
        }
    };
    let (store, Connected { writer, client, account, own_device }) = tokio::select! {
        up = up => up?,
        () = shutdown.cancelled() => return services.stop().await,
    };
    let mut config = config;
    config.backfill.concurrency = usize::try_from(store.connections.walks)?;
    health.homeserver_is(Homeserver::Answers);
    services.ready();
    let stopping = shutdown.clone();
    let context = Arc::new(Context {
        config,
        client,
        writer,
        own_device,
        write_slots: WriteSlots::default(),
        spare_pages: SparePages::default(),
        active_rooms: ActiveRooms::default(),
        progress: progress.clone(),
        health,
        live_events: AtomicU64::new(0),
        sync_is_current: AtomicBool::new(false),
        walks_opened: Notify::new(),
        states_marked_stale: Notify::new(),
        messages_stored: Notify::new(),
        messages_decrypted: Notify::new(),
        sessions_queued: Notify::new(),
        responses: watch::Sender::default(),
        hurries: AtomicU8::new(0),
        hurried: Notify::new(),
        rooms_chosen: Notify::new(),
        shutdown,
        once,
        retries,
    });
    let result = tokio::select! {
        result = work(Arc::clone(&context), account) => result,
        () = shutdown_deadline(&stopping) => Ok(()),
        never = supervise(store.server()) => match never {},
        never = tick_progress(&progress) => match never {},
        never = listen_for_room_choices(&context) => match never {},
        never = report_waits(&context) => match never {},
        // A transaction would find out that the lease is lost, but there may be nothing to write.
        taken = context.writer.lease_taken() => Err(taken.into()),
    };
    context.writer.release().await;
    services.stop().await?;
    progress.close();
    store.close().await?;
    result
}

/// Resolves when the work under way at the signal to stop must be aborted. The database rolls its transaction back,
/// and the checkpoint has not moved, so the next run fetches the same data again.
async fn shutdown_deadline(stopping: &CancellationToken) {
    stopping.cancelled().await;
    tokio::time::sleep(LAST_CALL).await;
    tracing::warn!("the work under way takes too long and is aborted; the next run fetches it again");
}

/// Shows the progress.
async fn tick_progress(progress: &Progress) -> Infallible {
    loop {
        tokio::time::sleep(TICK).await;
        progress.tick();
    }
}

/// Wakes the forward loop when `backscroll rooms` has changed the choice of rooms. Each new connection also counts as
/// a change, because notifications may have been lost before it.
async fn listen_for_room_choices(context: &Context) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        if let Ok(mut listener) = context.writer.archive().listen_for_choices().await {
            backoff.reset();
            context.rooms_chosen.notify_one();
            // `None`: the connection was lost and made anew. Every role that can connect can send notifications, any
            // number of them, so those within a moment count as one.
            while listener.try_recv().await.is_ok() {
                let moment = tokio::time::sleep(HEARD_AS_ONE);
                context.rooms_chosen.notify_one();
                let heard = async { while listener.try_recv().await.is_ok() {} };
                tokio::select! {
                    () = heard => break,
                    () = moment => context.rooms_chosen.notify_one(),
                }
            }
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// Logs once which session holds the lock that a transaction waits for, and once when the wait is over. The database
/// is queried only while a transaction takes long.
async fn report_waits(context: &Context) -> Infallible {
    let archive = context.writer.archive();
    let mut said: Vec<i32> = Vec::new();
    loop {
        tokio::time::sleep(LOOK_FOR_WAITS).await;
        let waits = if archive.is_held_up() { archive.waits().await.unwrap_or_default() } else { Vec::new() };
        for wait in waits.iter().filter(|wait| !said.contains(&wait.pid)) {
            let (waited_s, holder) = (wait.waited_s.round(), wait.holder());
            tracing::warn!(waited_s, holder, "a transaction waits for a lock that another session holds");
        }
        if waits.is_empty() && !said.is_empty() {
            tracing::info!("no transaction waits for a lock now");
        }
        said = waits.iter().map(|wait| wait.pid).collect();
    }
}

/// Keeps the private server running, if there is one.
async fn supervise(server: Option<&postgres::Server>) -> Infallible {
    match server {
        Some(server) => server.supervise().await,
        None => std::future::pending().await,
    }
}

/// Opens the database. Retries, because the database may still be starting.
async fn open_patiently(config: &Config, retries: RetryPolicy) -> anyhow::Result<Store> {
    let mut backoff = Backoff::default();
    loop {
        let failure = match Store::open(config).await {
            Ok(store) => return Ok(store),
            Err(failure) => failure,
        };
        let pause = match failure.downcast::<Unmet>() {
            Ok(unmet) if unmet.may_pass() && !retries.is_for_once() => {
                let pause = backoff.pause();
                tracing::warn!(error = %unmet, retry_in_s = pause.as_secs_f32(), "waiting for the database");
                pause
            }
            Ok(unmet) => return Err(unmet.into()),
            Err(failure) => {
                let error = failure.downcast::<Error>()?;
                retries.pause(&error, &mut backoff).ok_or_else(|| in_words(error))?
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// The error with the explanation that `backscroll check` prints.
fn in_words(error: Error) -> anyhow::Error {
    match error {
        Error::Archive(error) => Unmet::from(requirements::unreachable(&error)).into(),
        error @ Error::Matrix(_) => error.into(),
    }
}

/// What the daemon has once it is connected.
struct Connected {
    writer: Writer,
    client: Identity,
    account: Account,
    own_device: Option<OwnDevice>,
}

/// Prepares the database and logs in to the homeserver.
async fn connect(
    archive: &Archive,
    config: &Config,
    retries: RetryPolicy,
    health: &Health,
) -> anyhow::Result<Connected> {
    retries.retry(async || archive.migrate().await).await?;
    health.migrated();
    let writer = retries.retry(async || archive.writer(config.redactions).await).await?;
    let known = retries.retry(async || archive.account().await).await?;
    let device_id = known.and_then(|account| account.device_id);
    let (client, user_id) = log_in_patiently(config, device_id, &writer, retries, health).await?;
    let homeserver = config.homeserver.url()?.as_str();
    let device_id = client.device_id().await;
    let account = retries
        .retry(async || writer.account(user_id.as_str(), homeserver, device_id.as_deref()).await)
        .await?;
    tracing::info!(user.id = account.user_id, resumed = account.since.is_some(), "archiving");
    let reopened = retries.retry(async || writer.reopen_stalled().await).await?;
    if reopened > 0 {
        tracing::info!(walk_count = reopened, "trying stalled walks again");
    }
    let own_device = sync::own_device::open(config, &client, &writer, &account, retries).await?;
    Ok(Connected { writer, client, account, own_device })
}

/// Logs in to the homeserver. Retries, because the homeserver may still be starting, and a refusal may be temporary.
async fn log_in_patiently(
    config: &Config,
    device_id: Option<String>,
    writer: &Writer,
    retries: RetryPolicy,
    health: &Health,
) -> Result<(Identity, ruma::OwnedUserId), Error> {
    let mut backoff = Backoff::default();
    loop {
        let error = match log_in(config, device_id.clone()).await {
            Ok(identity) => return Ok(identity),
            // The configured credentials are missing or cannot be read: a retry does not help.
            Err(error @ matrix::Error::Credentials(_)) => return Err(error.into()),
            Err(error) => error,
        };
        let problem = format!("failed to {error}");
        health.homeserver_is(Homeserver::Fails(problem.clone()));
        let error = Error::from(error);
        let Some(pause) = retries.pause(&error, &mut backoff) else { return Err(error) };
        if backoff.failures() == 2
            && let Err(error) = writer.note_homeserver_fails(&problem).await
        {
            tracing::debug!(%error, "failed to record that the homeserver fails");
        }
        tokio::time::sleep(pause).await;
    }
}

async fn log_in(
    config: &Config,
    device_id: Option<String>,
) -> Result<(Identity, ruma::OwnedUserId), matrix::Error> {
    let client = Identity::new(&config.homeserver, device_id).await?;
    let user_id = client.whoami().await?.user_id;
    match client.ignored_users(&user_id).await {
        Ok(ignored) if !ignored.is_empty() => tracing::warn!(
            user_count = ignored.len(),
            "the account ignores users: the homeserver hides their messages from the archive"
        ),
        Ok(_) | Err(_) => {}
    }
    Ok((client, user_id))
}
