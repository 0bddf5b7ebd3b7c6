//! What runs where, as the network's scheduler tells it (network spec 4.1). Every answer is computed from the workloads and the linked compute nodes.

use super::{
    ApiError, ApiResult, State, moment, now_ms,
    paging::PAGE,
    parameters::{List, Number, Parameter, Parameters, Text},
    reference::{Group, Operation, Shape},
    routes::Routes,
};
use crate::{
    config::Crn,
    schedule::{Node, Placement, assign},
    store::{
        Reader as _, Snapshot, Walk,
        listing::{self, Filter},
        record::{Record as _, WorkloadRecord},
        schema::{IndexId, Table, end_of, hash_key, index_prefix, split_hash},
    },
};
use axum::{
    Json,
    extract::Path,
    response::{IntoResponse, Response},
};
use ccn_message::ItemHash;
use serde_json::{Map, Value, json};

/// Workloads read at a time.
const ROWS: usize = 1000;
/// Most workloads of one answer that lists all of them.
const MAX_LISTED: usize = 100_000;
/// Most messages of the owners or senders asked for that are looked through; where they have more, all workloads are.
const MAX_OF_SOMEBODY: u64 = 10_000;
static PAGE_SIZE: Parameter<Number> = Parameter::number(&["page_size"], "Rows of a page.", 50, 1..=200);
static OWNERS: Parameter<List> = Parameter::list(&["owner", "owners"], "Of these owners.");
static SENDERS: Parameter<List> = Parameter::list(&["sender"], "Signed for by these.");
static STATUS: Parameter<List> = Parameter::list(&["status"], "`scheduled` or `unschedulable`.");
static SCHEDULING_STATUS: Parameter<List> = Parameter::list(&["scheduling_status"], "The same as `status`.");
static VM_HASH: Parameter<Text> = Parameter::text(&["vm_hash"], "With a hash that begins like this.");
static ON: Parameter<Text> = Parameter::text(&["node"], "On this compute node.");
static FRAGMENTS: Parameter<List> = Parameter::list(&["hash"], "With a hash that begins or ends like one of these.");
/// How long a plan is worth relying on, seconds.
const PERIOD_SECONDS: f64 = 60.0;

pub(super) fn routes(routes: Routes) -> Routes {
    let hashes = || Shape::list(Shape::hash());
    let period_shape = Shape::object([("start_timestamp", Shape::moment()), ("duration_seconds", Shape::number())]);
    let of_node = Shape::object([
        ("persistent_vms", hashes()),
        ("instances", hashes()),
        ("on_demand_vms", hashes()),
        ("jobs", hashes()),
    ]);
    let plan_shape = Shape::object([("period", period_shape.clone()), ("plan", Shape::map(of_node))]);
    let info = Shape::object([
        ("node_id", Shape::text()),
        ("url", Shape::text()),
        ("ipv6", Shape::text().or_null()),
        ("supports_ipv6", Shape::flag()),
    ]);
    let placed = Shape::object([
        ("vm_hash", Shape::hash()),
        ("vm_type", Shape::text()),
        ("vm_ipv6", Shape::text().or_null()),
        ("period", period_shape),
        ("node", info.clone()),
    ]);
    let operation = |summary| Operation::new(Group::Compute, summary);
    let of_plan = operation("What runs where")
        .answers("The workloads of each linked compute node.", &plan_shape)
        .refuses(413, "They are too many.");
    let of_nodes =
        operation("The linked compute nodes").answers("Them.", &Shape::object([("nodes", Shape::list(info))]));
    let unknown = "No processed message asks for it, or it is on no node.";
    let vm_part = "The message that asks for it.";
    let of_allocation = operation("Where a workload runs")
        .path("vm", vm_part, &Shape::hash())
        .answers("Its compute node.", &placed)
        .refuses(404, unknown);
    let pages = |row: Shape| {
        let number = Shape::whole;
        let pagination = Shape::object([
            ("page", number()),
            ("page_size", number()),
            ("total_items", number()),
            ("total_pages", number()),
        ]);
        Shape::object([("items", Shape::list(row)), ("pagination", pagination)])
    };
    let of_vms = operation("Workloads")
        .query([&OWNERS, &SENDERS, &STATUS, &SCHEDULING_STATUS, &VM_HASH, &ON, &PAGE, &PAGE_SIZE])
        .answers("A page of them.", &pages(row_shape()))
        .refuses(413, "They are too many.");
    let of_vm =
        operation("A workload").path("vm", vm_part, &Shape::hash()).answers("It.", &row_shape()).refuses(404, unknown);
    let node_shape = Shape::object([
        ("node_hash", Shape::text()),
        ("name", Shape::text()),
        ("address", Shape::text().about("Its URL.")),
        ("url", Shape::text()),
        ("owner", Shape::text().or_null()),
    ]);
    let of_node_rows = operation("The linked compute nodes, by pages")
        .query([&FRAGMENTS, &PAGE, &PAGE_SIZE])
        .answers("A page of them.", &pages(node_shape.clone()));
    let of_one_node = operation("A compute node")
        .path("node", "The hash of its registration.", &Shape::text().with("minLength", 1))
        .answers("It.", &node_shape)
        .refuses(404, "It is not linked.");
    routes
        .get("/api/v0/plan", plan, of_plan)
        .get("/api/v0/nodes", nodes, of_nodes)
        .get("/api/v0/allocation/{vm}", allocation, of_allocation)
        .get("/api/v1/vms", vms, of_vms)
        .get("/api/v1/vms/{vm}", vm, of_vm)
        .get("/api/v1/nodes", node_rows, of_node_rows)
        .get("/api/v1/nodes/{node}", node, of_one_node)
}

/// The shape of a workload in the newer interface.
fn row_shape() -> Shape {
    let text = || Shape::text().or_null();
    Shape::object([
        ("vm_hash", Shape::hash()),
        ("vm_type", Shape::text()),
        ("allocated_node", text()),
        ("allocated_at", Shape::moment().or_null()),
        ("observed_nodes", Shape::list(Shape::text())),
        ("last_observed_at", text()),
        ("status", Shape::words(&["scheduled", "unschedulable"])),
        ("scheduling_status", Shape::words(&["scheduled", "unschedulable"])),
        ("requirements_vcpus", Shape::whole()),
        ("requirements_memory_mb", Shape::whole()),
        ("requirements_disk_mb", Shape::whole()),
        ("payment_type", Shape::text()),
        ("payment_status", text()),
        ("requires_confidential", Shape::flag()),
        ("gpu_requirements", Shape::list(Shape::anything())),
        ("migration_target", text()),
        ("migration_started_at", text()),
        ("owner", Shape::text()),
    ])
}

/// The linked compute nodes.
fn linked(crns: &[Crn]) -> Vec<Node> {
    crns.iter().map(|crn| Node { hash: crn.hash.clone(), weight: 1 }).collect()
}

fn period() -> Value {
    json!({"start_timestamp": moment::iso(now_ms()), "duration_seconds": PERIOD_SECONDS})
}

fn node_info(crn: &Crn) -> Value {
    json!({"node_id": crn.hash, "url": crn.url, "ipv6": null, "supports_ipv6": false})
}

/// All workloads, in the order of their hashes.
fn workloads(snapshot: &Snapshot) -> ApiResult<Vec<(ItemHash, WorkloadRecord)>> {
    let mut workloads = Vec::new();
    for row in Walk::new(snapshot, Table::Workloads, (Vec::new(), end_of(&[])), false, ROWS) {
        let (key, row) = row?;
        let Some((hash, _)) = split_hash(&key) else { continue };
        workloads.push((hash, WorkloadRecord::read(&row).map_err(crate::store::StoreError::from)?));
        if workloads.len() > MAX_LISTED {
            let sentence = format!("more than {MAX_LISTED} workloads; ask for one of them: /api/v0/allocation/<hash>");
            return Err(ApiError::too_large(sentence));
        }
    }
    Ok(workloads)
}

async fn plan(state: State) -> ApiResult<Response> {
    let crns = state.service.config.crns.clone();
    let work = move |snapshot: &Snapshot| {
        let nodes = linked(&crns);
        let lists = ["persistent_vms", "instances", "on_demand_vms", "jobs"];
        let empty = || Value::Object(lists.iter().map(|list| ((*list).to_owned(), json!([]))).collect());
        let mut plan: Map<String, Value> = nodes.iter().map(|node| (node.hash.clone(), empty())).collect();
        for (hash, workload) in workloads(snapshot)? {
            let Some(node) = assign(&hash.to_string(), workload.node.as_deref(), &nodes).node() else { continue };
            let list = match workload.kind.as_str() {
                "persistent_program" => "persistent_vms",
                "instance" => "instances",
                _ => "on_demand_vms",
            };
            if let Some(Value::Array(list)) = plan.get_mut(&node.hash).and_then(|lists| lists.get_mut(list)) {
                list.push(hash.to_string().into());
            }
        }
        Ok(Json(json!({"period": period(), "plan": plan})).into_response())
    };
    state.read(work).await
}

async fn nodes(state: State) -> Response {
    let nodes: Vec<Value> = state.service.config.crns.iter().map(node_info).collect();
    Json(json!({"nodes": nodes})).into_response()
}

fn workload(snapshot: &Snapshot, hash: &ItemHash) -> ApiResult<WorkloadRecord> {
    let row = snapshot.get(Table::Workloads, &hash_key(hash))?;
    let unknown = || ApiError::not_found(format!("no processed message {hash} asks for something to run"));
    Ok(WorkloadRecord::read(&row.ok_or_else(unknown)?).map_err(crate::store::StoreError::from)?)
}

async fn allocation(state: State, Path(vm): Path<String>) -> ApiResult<Response> {
    let hash = ItemHash::parse(&vm)?;
    let crns = state.service.config.crns.clone();
    let work = move |snapshot: &Snapshot| {
        let workload = workload(snapshot, &hash)?;
        let nodes = linked(&crns);
        let node = match assign(&vm, workload.node.as_deref(), &nodes) {
            Placement::On(node) => crns.iter().find(|crn| crn.hash == node.hash),
            Placement::PinnedElsewhere | Placement::Nowhere => None,
        };
        let Some(node) = node else {
            return Err(ApiError::not_found(unplaced(&workload)));
        };
        Ok(Json(json!({
            "vm_hash": vm,
            "vm_type": workload.kind,
            "vm_ipv6": null,
            "period": period(),
            "node": node_info(node),
        }))
        .into_response())
    };
    state.read(work).await
}

fn unplaced(workload: &WorkloadRecord) -> String {
    match &workload.node {
        Some(node) => format!("its owner chose the compute node {node}, which is not linked to this core node"),
        None => "no compute node is linked to this core node".to_owned(),
    }
}

/// A workload as the newer interface shows it.
fn row(hash: &str, workload: &WorkloadRecord, nodes: &[Node]) -> Value {
    let placed = assign(hash, workload.node.as_deref(), nodes).node();
    let status = if placed.is_some() { "scheduled" } else { "unschedulable" };
    json!({
        "vm_hash": hash,
        "vm_type": workload.kind,
        "allocated_node": placed.map(|node| node.hash.as_str()),
        "allocated_at": placed.map(|_| moment::iso(workload.accepted)),
        "observed_nodes": [],
        "last_observed_at": null,
        "status": status,
        "scheduling_status": status,
        "requirements_vcpus": workload.vcpus,
        "requirements_memory_mb": workload.memory_mib,
        "requirements_disk_mb": workload.disk_mib,
        "payment_type": workload.payment.name(),
        "payment_status": null,
        "requires_confidential": false,
        "gpu_requirements": [],
        "migration_target": null,
        "migration_started_at": null,
        "owner": workload.owner,
    })
}

/// Which page of rows is asked for.
fn read_page(parameters: &Parameters) -> ApiResult<(u64, u64)> {
    Ok((PAGE.read(parameters)?, PAGE_SIZE.read(parameters)?))
}

fn paged(rows: Vec<Value>, page: u64, size: u64) -> Response {
    let total = rows.len() as u64;
    let skip = usize::try_from((page - 1).saturating_mul(size)).unwrap_or(usize::MAX);
    let items: Vec<Value> = rows.into_iter().skip(skip).take(size as usize).collect();
    let pagination =
        json!({"page": page, "page_size": size, "total_items": total, "total_pages": total.div_ceil(size)});
    Json(json!({"items": items, "pagination": pagination})).into_response()
}

/// Whose workloads are asked for. Empty lists do not restrict.
struct Whose {
    /// Those whom they belong to.
    owners: Vec<String>,
    /// Those who signed for it.
    senders: Vec<String>,
}

impl Whose {
    /// Their workloads, in the order of their hashes.
    fn workloads(&self, snapshot: &Snapshot) -> ApiResult<Vec<(ItemHash, WorkloadRecord)>> {
        let (id, people) =
            if self.owners.is_empty() { (IndexId::Sender, &self.senders) } else { (IndexId::Owner, &self.owners) };
        if people.is_empty() {
            return workloads(snapshot);
        }
        let mut messages = 0_u64;
        for person in people {
            messages = messages.saturating_add(snapshot.number(Table::Counts, &index_prefix(id, person))?);
        }
        let mut found = if messages > MAX_OF_SOMEBODY {
            workloads(snapshot)?
        } else {
            let filter = match id {
                IndexId::Owner => Filter { owners: people.clone(), ..Filter::default() },
                _ => Filter { senders: people.clone(), ..Filter::default() },
            };
            let mut found = Vec::new();
            for hash in listing::hashes(snapshot, &filter, true, messages)? {
                if let Some(row) = snapshot.get(Table::Workloads, &hash_key(&hash))? {
                    found.push((hash, WorkloadRecord::read(&row).map_err(crate::store::StoreError::from)?));
                }
            }
            found.sort_by_cached_key(|(hash, _)| hash.to_string());
            found
        };
        found.retain(|(_, workload)| self.owners.is_empty() || self.owners.contains(&workload.owner));
        if self.senders.is_empty() {
            return Ok(found);
        }
        let mut sent = Vec::new();
        for (hash, workload) in found {
            let message = snapshot.message(&hash)?;
            if message.is_some_and(|message| self.senders.contains(&message.envelope.sender)) {
                sent.push((hash, workload));
            }
        }
        Ok(sent)
    }
}

async fn vms(state: State, parameters: Parameters) -> ApiResult<Response> {
    let (page, size) = read_page(&parameters)?;
    let whose = Whose { owners: OWNERS.read(&parameters)?, senders: SENDERS.read(&parameters)? };
    let statuses = [STATUS.read(&parameters)?, SCHEDULING_STATUS.read(&parameters)?];
    let prefix = VM_HASH.read(&parameters)?.unwrap_or_default().to_owned();
    let on = ON.read(&parameters)?.map(str::to_owned);
    let crns = state.service.config.crns.clone();
    let work = move |snapshot: &Snapshot| {
        let nodes = linked(&crns);
        let mut rows = Vec::new();
        for (hash, workload) in whose.workloads(snapshot)? {
            let hash = hash.to_string();
            if !hash.starts_with(&prefix) {
                continue;
            }
            let row = row(&hash, &workload, &nodes);
            let is_one_of =
                |list: &Vec<String>| list.is_empty() || list.iter().any(|word| row["status"] == word.as_str());
            let is_on = on.as_ref().is_none_or(|on| row["allocated_node"] == on.as_str());
            if is_on && statuses.iter().all(is_one_of) {
                rows.push(row);
            }
        }
        Ok(paged(rows, page, size))
    };
    state.read(work).await
}

async fn vm(state: State, Path(vm): Path<String>) -> ApiResult<Response> {
    let hash = ItemHash::parse(&vm)?;
    let crns = state.service.config.crns.clone();
    let work =
        move |snapshot: &Snapshot| Ok(Json(row(&vm, &workload(snapshot, &hash)?, &linked(&crns))).into_response());
    state.read(work).await
}

/// A compute node as the newer interface shows it. `address` is what clients read; `url` is what this node called it first.
fn node_row(crn: &Crn) -> Value {
    json!({"node_hash": crn.hash, "name": crn.name, "address": crn.url, "url": crn.url, "owner": crn.owner})
}

async fn node_rows(state: State, parameters: Parameters) -> ApiResult<Response> {
    let (page, size) = read_page(&parameters)?;
    // Clients print the last characters of a hash and ask by them.
    let fragments = FRAGMENTS.read(&parameters)?;
    let is_asked = |crn: &&Crn| {
        let matches = |fragment: &String| crn.hash.starts_with(fragment) || crn.hash.ends_with(fragment);
        fragments.is_empty() || fragments.iter().any(matches)
    };
    Ok(paged(state.service.config.crns.iter().filter(is_asked).map(node_row).collect(), page, size))
}

async fn node(state: State, Path(hash): Path<String>) -> ApiResult<Response> {
    let crn = state.service.config.crns.iter().find(|crn| crn.hash == hash);
    let unknown = || ApiError::not_found(format!("the compute node {hash} is not linked to this core node"));
    Ok(Json(node_row(crn.ok_or_else(unknown)?)).into_response())
}
