//! What handlers and indexers have in common: what they may import, the paths that they answer, and how their instances are started and called.

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

/// A running component: a memory of its own, and what it exports.
pub(super) struct Instance<I> {
    store: Store<Host>,
    exports: I,
}

impl<I> Instance<I> {
    /// Starts one in a fresh store.
    pub(super) fn start(
        engine: &Engine,
        access: &Arc<Access>,
        start: impl FnOnce(&mut Store<Host>) -> wasmtime::Result<I>,
    ) -> wasmtime::Result<Self> {
        let mut store = Store::new(engine, Host::new(access.clone(), START_FUEL));
        store.limiter(|host| host);
        store.set_epoch_deadline(DEADLINE_TICKS);
        store.set_fuel(START_FUEL)?;
        let exports = start(&mut store)?;
        Ok(Self { store, exports })
    }

    /// Calls it once, with so much fuel and as much time as any call has. Returns the fuel that it used, too.
    pub(super) fn call<T>(
        &mut self,
        reader: Option<Arc<dyn Reader + Send + Sync>>,
        fuel: u64,
        run: impl FnOnce(&mut Store<Host>, &I) -> wasmtime::Result<T>,
    ) -> (wasmtime::Result<T>, u64) {
        let Self { store, exports } = self;
        store.data_mut().begin(reader, fuel);
        store.set_epoch_deadline(DEADLINE_TICKS);
        let answer = store.set_fuel(fuel).and_then(|()| {
            let answer = run(store, exports)?;
            // One tank: what the host did is taken off what the instance has left.
            let used = store.data().fuel_used();
            if store.get_fuel()? < used { Err(Trap::OutOfFuel.into()) } else { Ok(answer) }
        });
        let own = fuel.saturating_sub(store.get_fuel().unwrap_or(0));
        let used = own.saturating_add(store.data().fuel_used()).min(fuel);
        store.data_mut().end();
        (answer, used)
    }

    /// Most memory that it had, KiB.
    pub(super) fn memory_peak_kib(&self) -> u64 {
        self.store.data().memory_peak_kib()
    }
}
