//! Redis: its role, its memory, and whether the services' commands go through.

use coupon_core::settings::{Namespace, RedisSettings};
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{AsyncConnectionConfig, Cmd, RedisError, RedisResult, Value, cmd};
use time::OffsetDateTime;

use super::Program;
use super::sheet::{Sheet, Variables};
use crate::servers::Servers;

/// The keys that a check writes expire after this.
const KEPT_FOR_SECONDS: u64 = 5;

pub async fn check(sheet: &mut Sheet, servers: &Servers, programs: &[Program]) -> anyhow::Result<()> {
    let programs: Vec<Program> = programs.iter().copied().filter(|program| *program != Program::SkiplockApi).collect();
    if programs.is_empty() {
        return Ok(());
    }
    let url = &servers.redis.redis_url;
    let mut connection = match connect(&servers.redis).await {
        Ok(connection) => connection,
        // Only a server that answers reports this.
        Err(coupon_core::Error::Redis(error)) if is_about_database(&error) => {
            let remedy =
                "end COUPON_REDIS_URL with the number of a database that the server has (`databases` in redis.conf)";
            sheet.wrong("database", &format!("{url}: {error}"), remedy);
            return Ok(());
        }
        Err(error) => {
            sheet.not_reached("reachable", &format!("{url}: {error}"), error.remedy());
            return Ok(());
        }
    };
    sheet.ok("reachable", &url.to_string());
    info(sheet, &mut connection).await?;
    let mut unwritable = None;
    for program in programs {
        rights(sheet, &mut connection, program, &servers.namespace.namespace, &mut unwritable).await?;
    }
    match unwritable {
        None => sheet.ok("takes writes", "a key was written and deleted"),
        Some(words) => sheet.wrong(
            "takes writes",
            &words,
            "name the primary in COUPON_REDIS_URL; give it memory, or a maxmemory-policy of volatile-ttl",
        ),
    }
    Ok(())
}

async fn connect(settings: &RedisSettings) -> coupon_core::Result<MultiplexedConnection> {
    let deadline = Some(settings.redis_deadline);
    let config = AsyncConnectionConfig::new().set_connection_timeout(deadline).set_response_timeout(deadline);
    Ok(coupon_core::redis::client(settings)?.get_multiplexed_async_connection_with_config(&config).await?)
}

fn is_about_database(error: &RedisError) -> bool {
    let words = error.to_string().to_lowercase();
    words.contains("db index") || words.contains("database number") || words.contains("select is not allowed")
}

/// Checks what the server reports about itself, if this user may ask.
async fn info(sheet: &mut Sheet, connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let text = match cmd("INFO").query_async::<String>(connection).await {
        Ok(text) => text,
        Err(error) if error.code() == Some("NOPERM") => {
            sheet.warning(
                "role and memory",
                &error.to_string(),
                "ask as a user who may use INFO and TIME, as couponctl",
            );
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    let info: Variables = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    settings(sheet, &info);

    let before = OffsetDateTime::now_utc();
    match cmd("TIME").query_async::<(i64, i64)>(connection).await {
        Ok((seconds, micros)) => {
            let now = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
            sheet.clock(now + time::Duration::microseconds(micros), before, OffsetDateTime::now_utc());
        }
        Err(error) => sheet.warning("clock", &error.to_string(), "ask as a user who may use TIME, as couponctl"),
    }
    Ok(())
}

fn settings(sheet: &mut Sheet, info: &Variables) {
    let version = info.get("redis_version");
    let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    if major >= 7 {
        sheet.ok("version", version);
    } else {
        sheet.wrong("version", version, "Redis 7 is the first that is supported");
    }
    if info.get("role") != "master" {
        let found = format!("{} of {}", info.get("role"), info.get("master_host"));
        sheet.wrong("role", &found, "name the primary in COUPON_REDIS_URL: a replica refuses all writes");
    } else if info.is_on("loading") {
        sheet.wrong("role", "it is loading its data", "wait until it has; until then it refuses all commands");
    } else {
        sheet.ok("role", "master");
    }
    if info.is_on("cluster_enabled") {
        let remedy = "use one that is no cluster: a command about several campaigns fails there (CROSSSLOT)";
        sheet.wrong("cluster mode", "on", remedy);
    } else {
        sheet.ok("cluster mode", "off");
    }
    memory(sheet, info.number("maxmemory").unwrap_or(0), info.get("maxmemory_policy"));
    if info.is_on("aof_enabled") {
        sheet.ok("append-only log", "on");
    } else {
        let remedy = "appendonly yes (deploy/redis/redis.conf): without it a restart forgets outcomes and lists of free \
                      coupons, which are read from MySQL again";
        sheet.warning("append-only log", "off", remedy);
    }
}

fn memory(sheet: &mut Sheet, max: u64, policy: &str) {
    let found = format!("maxmemory = {max}, maxmemory-policy = {policy}");
    if policy.starts_with("volatile-") && max > 0 {
        return sheet.ok("memory", &found);
    }
    let remedy = "maxmemory 512mb and maxmemory-policy volatile-ttl (deploy/redis/redis.conf)";
    if max > 0 && policy == "noeviction" {
        sheet.wrong(
            "memory",
            &found,
            &format!("{remedy}: one that is full refuses writes, and the queue stands still"),
        );
    } else if max > 0 {
        sheet.warning("memory", &found, &format!("{remedy}: lists of free coupons are dropped before outcomes"));
    } else {
        sheet.warning("memory", &found, &format!("{remedy}: without a limit it grows until the machine ends it"));
    }
}

/// The commands of a program, on keys of its namespace that belong to no campaign. couponctl needs all of them.
fn commands(program: Program, namespace: &Namespace) -> Vec<Cmd> {
    // The key that readiness writes.
    let readiness = format!("{namespace}:look");
    // No campaign has the number 0.
    let key = format!("{namespace}:{{0}}:doctor");
    let list = format!("{namespace}:{{0}}:doctor-list");
    let command = |words: &[&str]| {
        let mut command = Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command
    };
    let seconds = KEPT_FOR_SECONDS.to_string();
    let reads = [command(&["PING"]), command(&["MGET", &key])];
    let writes = [
        command(&["SET", &key, "v", "EX", &seconds, "NX"]),
        command(&["GET", &key]),
        command(&["SETEX", &key, &seconds, "v"]),
        command(&["EVAL", "return redis.call('GET', KEYS[1])", "1", &key]),
        command(&["SCRIPT", "LOAD", "return 0"]),
        command(&["DEL", &key]),
        command(&["RPUSH", &list, "v"]),
        command(&["LPUSHX", &list, "v"]),
        command(&["EXPIRE", &list, &seconds]),
        command(&["LLEN", &list]),
        command(&["LPOP", &list, "1"]),
        command(&["UNLINK", &list]),
        command(&["UNWATCH"]),
    ];
    let writes_readiness = command(&["SET", &readiness, "", "PX", "100"]);
    let push = command(&["PUBLISH", &format!("{namespace}:doctor:outcomes:0"), ""]);
    let operators = [command(&["SCAN", "0", "MATCH", &format!("{namespace}:*"), "COUNT", "1"])];
    match program {
        Program::ProducerApi => reads.into_iter().chain([writes_readiness, push]).collect(),
        Program::QueueConsumer => writes.into_iter().chain([writes_readiness, push]).collect(),
        Program::Couponctl => {
            reads.into_iter().chain(writes).chain([writes_readiness, push]).chain(operators).collect()
        }
        Program::SkiplockApi => Vec::new(),
    }
}

async fn rights(
    sheet: &mut Sheet,
    connection: &mut MultiplexedConnection,
    program: Program,
    namespace: &Namespace,
    unwritable: &mut Option<String>,
) -> RedisResult<()> {
    let check = format!("rights of {}", program.name());
    let mut missing: Vec<String> = Vec::new();
    for command in commands(program, namespace) {
        let Err(error) = command.query_async::<Value>(connection).await else { continue };
        match error.code() {
            Some("NOPERM") => missing.push(error.detail().unwrap_or("a command").to_owned()),
            // A script reports a missing right in other words.
            _ if error.to_string().contains("can't run this command or subcommand") => missing.push(error.to_string()),
            Some(_) => *unwritable = Some(error.to_string()),
            None => return Err(error),
        }
    }
    missing.dedup();
    if missing.is_empty() {
        sheet.ok(&check, "all of its commands go through");
    } else {
        let remedy =
            format!("give the user the line of {} in deploy/redis/users.acl; see docs/RIGHTS.md", program.name());
        sheet.wrong(&check, &missing.join("; "), &remedy);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sheet::{Finding, Verdict};
    use super::*;

    /// The findings about a server that is as it should be except for these lines of INFO.
    fn finds(differs: &[(&str, &str)]) -> Vec<Finding> {
        let sound = [
            ("redis_version", "7.0.15"),
            ("role", "master"),
            ("loading", "0"),
            ("cluster_enabled", "0"),
            ("maxmemory", "536870912"),
            ("maxmemory_policy", "volatile-ttl"),
            ("aof_enabled", "1"),
        ];
        let info =
            sound.iter().chain(differs).map(|(name, value)| (String::from(*name), String::from(*value))).collect();
        let mut sheet = Sheet::of("Redis");
        settings(&mut sheet, &info);
        sheet.into_findings().into_iter().filter(|finding| finding.verdict != Verdict::Ok).collect()
    }

    #[test]
    fn each_wrong_setting_is_found_by_itself() {
        assert!(finds(&[]).is_empty());
        for (differs, check, verdict) in [
            (&[("redis_version", "6.2.1")][..], "version", Verdict::Wrong),
            (&[("role", "slave"), ("master_host", "10.0.0.1")], "role", Verdict::Wrong),
            (&[("loading", "1")], "role", Verdict::Wrong),
            (&[("cluster_enabled", "1")], "cluster mode", Verdict::Wrong),
            (&[("maxmemory_policy", "noeviction")], "memory", Verdict::Wrong),
            (&[("maxmemory_policy", "allkeys-lru")], "memory", Verdict::Warning),
            (&[("maxmemory", "0"), ("maxmemory_policy", "noeviction")], "memory", Verdict::Warning),
            (&[("aof_enabled", "0")], "append-only log", Verdict::Warning),
        ] {
            let found = finds(differs);
            assert!(
                matches!(&found[..], [found] if found.check == check && found.verdict == verdict),
                "{differs:?}: {found:?}"
            );
        }
    }
}
