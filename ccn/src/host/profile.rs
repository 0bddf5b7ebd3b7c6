//! The engine and its profile: everything that decides whether two nodes get the same answer from a plugin (plugins spec 4.5).

use super::manifest::MAX_MEMORY_MIB;
use std::time::Duration;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

/// Name of everything below: the line of wasmtime, the options, the bounds of `view` and `outcome`, the fuel of `crypto`.
pub(crate) const PROFILE: &str = "wt48-c";

/// Stack of a plugin, bytes. Threads that run plugins have at least four times as much.
const MAX_STACK_BYTES: usize = 512 << 10;
/// Memory of all instances that wait between two calls for their message, MiB.
pub(super) const KEPT_MEMORY_MIB: u32 = 512;
/// What one of them counts as at least, MiB.
pub(super) const KEPT_AT_LEAST_MIB: u32 = 4;
/// Instances at once: those, and what runs.
const POOL: u32 = KEPT_MEMORY_MIB / KEPT_AT_LEAST_MIB + 64;
/// Core modules of a component: the plugin's own, and what adapts its imports. Python's interpreter with its libraries is 38 of them.
const MAX_CORE_INSTANCES: u32 = 48;
/// Most elements of a table.
pub(super) const MAX_TABLE_ELEMENTS: usize = 20_000;
/// Largest description of an instance, bytes.
const MAX_INSTANCE_BYTES: usize = 1 << 20;
/// Memory of a slot that stays resident between calls, bytes.
const KEPT_RESIDENT_BYTES: usize = 256 << 10;

/// How often the clock that guards against endless work ticks.
const TICK: Duration = Duration::from_millis(10);
/// Ticks that a call may take. Fuel ends a call earlier, unless the machine is overwhelmed.
pub(super) const DEADLINE_TICKS: u64 = 500;

/// An engine whose clock ticks as long as it lives.
///
/// # Errors
/// The machine lacks what the profile needs.
pub(super) fn engine(optimize: bool) -> wasmtime::Result<Engine> {
    let pooled = Engine::new(&config(true, optimize));
    let engine = match pooled {
        Ok(engine) => engine,
        Err(error) => {
            // Address space is limited, as in some containers: slower, and the same answers.
            tracing::warn!("plugins run without a pool of instances: {error}");
            Engine::new(&config(false, optimize))?
        }
    };
    tick(engine.weak());
    Ok(engine)
}

/// An engine that compiles and runs nothing: without a pool, which takes a terabyte of address space.
pub(super) fn compiler(optimize: bool) -> wasmtime::Result<Engine> {
    Engine::new(&config(false, optimize))
}

fn config(pooled: bool, optimize: bool) -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(if optimize { OptLevel::Speed } else { OptLevel::None })
        .consume_fuel(true)
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .max_wasm_stack(MAX_STACK_BYTES)
        .wasm_component_model(true)
        .wasm_relaxed_simd(false)
        .relaxed_simd_deterministic(true)
        .wasm_memory64(false)
        .wasm_tail_call(false)
        .wasm_multi_memory(false)
        .shared_memory(false)
        .concurrency_support(false)
        .memory_init_cow(true);
    if pooled {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(POOL)
            .total_core_instances(POOL * MAX_CORE_INSTANCES)
            .total_memories(POOL)
            .total_tables(POOL * MAX_CORE_INSTANCES)
            .max_core_instances_per_component(MAX_CORE_INSTANCES)
            .max_memories_per_component(1)
            .max_tables_per_component(MAX_CORE_INSTANCES)
            .max_component_instance_size(MAX_INSTANCE_BYTES)
            .max_core_instance_size(MAX_INSTANCE_BYTES)
            .table_elements(MAX_TABLE_ELEMENTS)
            .max_memory_size((MAX_MEMORY_MIB << 20) as usize)
            .linear_memory_keep_resident(KEPT_RESIDENT_BYTES)
            // Where the kernel can say which pages were touched, those alone are cleared for the next call: half of what a fresh instance costs.
            .pagemap_scan(Enabled::Auto);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

fn tick(engine: wasmtime::EngineWeak) {
    let ticking = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("plugin-clock".into()).spawn(ticking) {
        tracing::error!("no clock for plugins: only their fuel bounds them: {error}");
    }
}
