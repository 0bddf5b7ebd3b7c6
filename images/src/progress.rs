//! How a builder tells a person where it is.

/// Receives the course of long work. Builders call it a few times a second at most where a
/// program's output drives it; implementations must not block.
pub trait Progress: Sync {
    /// A step has begun, such as `compiling the guest kernel`; the step before it has ended.
    fn step(&self, name: &str);
    /// How far the current step is: the part that is done (0 to 1) if that is known, and a few
    /// words about what is being worked on.
    fn update(&self, fraction: Option<f32>, status: &str);
}

/// Nobody is watching.
impl Progress for () {
    fn step(&self, _name: &str) {}
    fn update(&self, _fraction: Option<f32>, _status: &str) {}
}
