//! What handlers and indexers have in common: what they may import, the paths that they answer, and a fresh instance for every call.

use super::{
    Manifest,
    plugin::PrepareError,
    profile::DEADLINE_TICKS,
    route::Route,
    view::{Access, Host},
};
use crate::store::Reader;
use std::sync::Arc;
use wasmtime::{Engine, Store, Trap, component::Component};

/// Fuel for the start of an instance, apart from that of the call.
const START_FUEL: u64 = 50_000_000;

/// Refuses a component that imports something else than these interfaces.
pub(super) fn check_imports(engine: &Engine, component: &Component, allowed: &[&str]) -> Result<(), PrepareError> {
    match component.component_type().imports(engine).find(|(name, _)| !allowed.contains(name)) {
        Some((name, _)) => Err(PrepareError::Import(name.to_owned())),
        None => Ok(()),
    }
}

/// The paths that a manifest wants to answer.
pub(super) fn routes(manifest: &Manifest) -> Result<Vec<Route>, PrepareError> {
    let route = |pattern: &String| {
        let route = Route::parse(pattern).filter(|_| pattern.starts_with("/api/"));
        route.ok_or_else(|| PrepareError::Route(pattern.clone()))
    };
    manifest.routes.iter().map(route).collect()
}

/// Where an instance lives during one call, and what it sees and may use there.
pub(super) fn fresh_store(
    engine: &Engine,
    access: &Arc<Access>,
    reader: Option<Arc<dyn Reader + Send + Sync>>,
    fuel: u64,
) -> Store<Host> {
    let mut store = Store::new(engine, Host::new(access.clone(), reader, fuel));
    store.limiter(|host| host);
    store.set_epoch_deadline(DEADLINE_TICKS);
    store
}

/// Starts an instance in its store and runs it, with so much fuel for the call.
pub(super) fn run<I, T>(
    store: &mut Store<Host>,
    fuel: u64,
    start: impl FnOnce(&mut Store<Host>) -> wasmtime::Result<I>,
    run: impl FnOnce(&mut Store<Host>, &I) -> wasmtime::Result<T>,
) -> wasmtime::Result<T> {
    store.set_fuel(START_FUEL)?;
    let instance = start(store)?;
    store.set_fuel(fuel)?;
    let answer = run(store, &instance)?;
    // One tank: what the host did is taken off what the instance has left.
    let used = store.data().fuel_used();
    if store.get_fuel()? < used { Err(Trap::OutOfFuel.into()) } else { Ok(answer) }
}
