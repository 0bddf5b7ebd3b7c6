//! What the node says of itself: to lists, scoring and schedulers (spec: crn, section 6.1), and to a person.

use super::{ApiError, Service};
use crate::{executor::state::Execution, meter::System};
use axum::{Json, extract::State, response::Html};
use http::StatusCode;
use serde_json::{Map, Value, json};
use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

/// The program that checks nodes; its hash is in the configuration that they publish.
const CHECK_PROGRAM: &str = "d2b74aa29898457bde0560e47f7cdd4e77287e9f1f7a1456161d2fd7d5c855d7";

/// `GET /about/usage/system`.
pub(super) async fn usage(State(service): State<Arc<Service>>) -> Result<Json<System>, ApiError> {
    Ok(Json(System::now(&service.config.data_dir, service.machines.is_ok())?))
}

/// `GET /about/login`: nobody can log in yet, and scoring wants exactly this.
pub(super) async fn login() -> (StatusCode, Json<Value>) {
    (StatusCode::UNAUTHORIZED, Json(json!({"success": false})))
}

/// `GET /about/executions/list`: the machines that serve.
pub(super) async fn executions(State(service): State<Arc<Service>>) -> Json<Value> {
    let running = service.executor.executions().await.into_iter().filter(|execution| execution.running);
    // Machines have no addresses yet.
    let entry = |execution: Execution| {
        (
            execution.item_hash.to_string(),
            json!({"networking": {}, "vm_type": "microvm", "awaiting_confidential_init": false}),
        )
    };
    Json(Value::Object(running.map(entry).collect()))
}

/// `GET /v2/about/executions/list`: all machines. Of a program with an old and a new one, the newer.
pub(super) async fn executions_v2(State(service): State<Arc<Service>>) -> Json<Value> {
    let clock = Clock::new();
    let mut list = Map::new();
    for execution in service.executor.executions().await {
        let at = |moment: Option<Instant>| moment.map_or(Value::Null, |moment| clock.written(moment).into());
        let timeline = execution.timeline;
        let entry = json!({
            "networking": {},
            "status": {
                "defined_at": at(Some(timeline.defined)),
                "preparing_at": at(timeline.preparing),
                "prepared_at": at(timeline.prepared),
                "starting_at": at(timeline.starting),
                "started_at": at(timeline.started),
                "stopping_at": at(timeline.stopping),
                "stopped_at": Value::Null,
            },
            "running": execution.running,
            "awaiting_confidential_init": false,
            "vm_type": "microvm",
        });
        list.insert(execution.item_hash.to_string(), entry);
    }
    Json(Value::Object(list))
}

/// `GET /status/config`.
pub(super) async fn config(State(service): State<Arc<Service>>) -> Json<Value> {
    let config = &service.config;
    Json(json!({
        "DOMAIN_NAME": config.domain_name,
        "node_hash": config.node_hash,
        "version": config.version,
        "references": {
            "API_SERVER": config.ccn,
            "CHECK_FASTAPI_VM_ID": CHECK_PROGRAM,
            "CONNECTOR_URL": Value::Null,
        },
        "security": {
            "USE_JAILER": true,
            "PRINT_SYSTEM_LOGS": false,
            "WATCH_FOR_UPDATES": false,
            "ALLOW_VM_NETWORKING": false,
            "USE_DEVELOPER_SSH_KEYS": false,
        },
        "networking": {
            "IPV6_ADDRESS_POOL": Value::Null,
            "IPV6_ALLOCATION_POLICY": "static",
            "IPV6_SUBNET_PREFIX": 124,
            "IPV6_FORWARDING_ENABLED": false,
            "USE_NDP_PROXY": false,
        },
        "debug": {"SENTRY_DSN_CONFIGURED": false, "DEBUG_ASYNCIO": false, "EXECUTION_LOG_ENABLED": false},
        "payment": {
            "PAYMENT_RECEIVER_ADDRESS": Value::Null,
            "AVAILABLE_PAYMENTS": {},
            "PAYMENT_MONITOR_INTERVAL": 60,
        },
        "computing": {
            "ENABLE_QEMU_SUPPORT": false,
            "INSTANCE_DEFAULT_HYPERVISOR": Value::Null,
            "ENABLE_CONFIDENTIAL_COMPUTING": false,
            "ENABLE_GPU_SUPPORT": false,
        },
    }))
}

/// `GET /`: for a person who looks.
pub(super) async fn index(service: &Service) -> Html<String> {
    let executions = service.executor.executions().await;
    let state = match &service.machines {
        Ok(()) => "This node runs programs.".to_owned(),
        Err(reason) => format!("This node cannot run programs: {reason}"),
    };
    let mut rows = String::new();
    for execution in &executions {
        let hash = &execution.item_hash;
        let phase = if execution.running { "running" } else { "starting or stopping" };
        rows.push_str(&format!("<tr><td><a href=\"/vm/{hash}/\"><code>{hash}</code></a></td><td>{phase}</td></tr>\n"));
    }
    if rows.is_empty() {
        rows.push_str("<tr><td colspan=\"2\">No program is running.</td></tr>\n");
    }
    Html(
        include_str!("index.html")
            .replace("{{state}}", &escaped(&state))
            .replace("{{domain}}", &escaped(&service.config.domain_name))
            .replace("{{ccn}}", &escaped(&service.config.ccn))
            .replace("{{version}}", env!("CARGO_PKG_VERSION"))
            .replace("{{templates}}", &escaped(&service.templates.counts().to_string()))
            .replace("{{rows}}", &rows),
    )
}

/// Text as it may stand in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Turns moments of the steady clock into dates.
struct Clock {
    instant: Instant,
    wall: SystemTime,
}

impl Clock {
    fn new() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }

    /// `YYYY-MM-DD HH:MM:SS.ffffff+00:00`.
    fn written(&self, moment: Instant) -> String {
        let wall = self.wall.checked_sub(self.instant.duration_since(moment)).unwrap_or(self.wall);
        format!("{}+00:00", jiff::Timestamp::try_from(wall).unwrap_or_default().strftime("%Y-%m-%d %H:%M:%S.%6f"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_moment_is_written_as_the_api_writes_it() {
        let clock =
            Clock { instant: Instant::now(), wall: SystemTime::UNIX_EPOCH + Duration::new(1_788_220_802, 250_000_000) };
        assert_eq!(clock.written(clock.instant), "2026-09-01 00:00:02.250000+00:00");
        let before = clock.instant.checked_sub(Duration::from_secs(3)).expect("a running clock");
        assert_eq!(clock.written(before), "2026-08-31 23:59:59.250000+00:00");
    }

    #[test]
    fn text_stays_text() {
        assert_eq!(escaped("<a href=\"x\">&</a>"), "&lt;a href=&quot;x&quot;&gt;&amp;&lt;/a&gt;");
    }
}
