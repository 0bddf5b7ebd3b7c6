//! Reproducible builders of guest kernel, initramfs, runtimes and the KVM host.
