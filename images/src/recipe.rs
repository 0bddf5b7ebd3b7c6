//! Recipes of runtimes: which packages, what is left out, what is added, each with its reason.

use crate::ImagesError;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A recipe as its file says it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Recipe {
    /// For people.
    #[serde(rename = "description")]
    _description: String,
    /// A recipe that this one adds to.
    #[serde(default)]
    extends: Option<String>,
    /// Package → why it is there. What they depend on comes along.
    #[serde(default)]
    pub(crate) packages: BTreeMap<String, String>,
    /// Package that others depend on → why it is not needed here.
    #[serde(default)]
    pub(crate) leave_out: BTreeMap<String, String>,
    /// Absolute path pattern → why what it names is removed.
    #[serde(default)]
    pub(crate) trim: BTreeMap<String, String>,
    /// Absolute path → what the folder is for; mode 755 unless the path is in `modes`.
    #[serde(default)]
    pub(crate) folders: BTreeMap<String, String>,
    /// Absolute path of a folder or file → mode, in octal.
    #[serde(default)]
    pub(crate) modes: BTreeMap<String, String>,
    /// Absolute path → content.
    #[serde(default)]
    pub(crate) files: BTreeMap<String, String>,
    /// Absolute path → target.
    #[serde(default)]
    pub(crate) links: BTreeMap<String, String>,
    /// Absolute path → pattern: the file is all files of that pattern after each other.
    #[serde(default)]
    pub(crate) concatenate: BTreeMap<String, String>,
    /// A program of busybox's kind: it is linked under the name of each of its applets.
    #[serde(default)]
    pub(crate) applets: Option<String>,
    /// Python sources that are compiled beforehand.
    #[serde(default)]
    pub(crate) python: Option<Python>,
    /// How the image is compressed.
    #[serde(default)]
    pub(crate) image: Option<Image>,
}

/// Python sources that are compiled beforehand.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Python {
    /// The interpreter, one of the recipe's own files.
    pub(crate) interpreter: String,
    /// The folders with the sources.
    pub(crate) folders: Vec<String>,
}

/// How the image is made.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Image {
    /// Options for `mkfs.erofs`.
    pub(crate) options: Vec<String>,
}

/// The recipes, by name.
const RECIPES: [(&str, &str); 4] = [
    ("base", include_str!("../rootfs/base.toml")),
    ("python", include_str!("../rootfs/python.toml")),
    ("qemu", include_str!("../rootfs/qemu.toml")),
    ("smallest", include_str!("../rootfs/smallest.toml")),
];

/// The names of all runtimes. `base` and `python` are for programs; `qemu` is for comparing boot
/// times in the emulated host, `smallest` for testing the builder.
pub const RECIPE_NAMES: [&str; 4] = [RECIPES[0].0, RECIPES[1].0, RECIPES[2].0, RECIPES[3].0];

/// The text of a recipe and of those it extends, the outermost last.
pub(crate) fn texts(name: &str) -> Result<Vec<&'static str>, ImagesError> {
    let mut texts = Vec::new();
    let mut next = Some(name.to_owned());
    while let Some(name) = next {
        let (_, text) = RECIPES
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| ImagesError::UnknownRuntime(name.clone()))?;
        if texts.len() == RECIPES.len() {
            return Err(wrong(&name, "extends itself"));
        }
        texts.push(*text);
        next = parse(&name, text)?.extends;
    }
    texts.reverse();
    Ok(texts)
}

impl Recipe {
    /// A recipe with what it extends laid below it.
    pub(crate) fn named(name: &str) -> Result<Self, ImagesError> {
        let mut layers = texts(name)?.into_iter();
        let first = layers.next().ok_or_else(|| ImagesError::UnknownRuntime(name.to_owned()))?;
        let mut recipe = parse(name, first)?;
        for text in layers {
            recipe.lay(parse(name, text)?);
        }
        Ok(recipe)
    }

    fn lay(&mut self, over: Self) {
        let Self {
            _description,
            extends: _,
            packages,
            leave_out,
            trim,
            folders,
            modes,
            files,
            links,
            concatenate,
            applets,
            python,
            image,
        } = over;
        // What is asked for by name comes back.
        self.leave_out.retain(|name, _| !packages.contains_key(name));
        self.packages.extend(packages);
        self.leave_out.extend(leave_out);
        self.trim.extend(trim);
        self.folders.extend(folders);
        self.modes.extend(modes);
        self.files.extend(files);
        self.links.extend(links);
        self.concatenate.extend(concatenate);
        self.applets = applets.or(self.applets.take());
        self.python = python.or(self.python.take());
        self.image = image.or(self.image.take());
    }
}

fn parse(name: &str, text: &str) -> Result<Recipe, ImagesError> {
    toml::from_str(text).map_err(|error| wrong(name, &error.to_string()))
}

fn wrong(recipe: &str, reason: &str) -> ImagesError {
    ImagesError::Recipe { recipe: recipe.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_parses_and_gives_a_reason_for_all_it_names() {
        for name in RECIPE_NAMES {
            let recipe = Recipe::named(name).expect("a recipe");
            let reasons = [&recipe.packages, &recipe.leave_out, &recipe.trim, &recipe.folders].into_iter().flatten();
            for (what, reason) in reasons {
                assert!(reason.len() > 3, "{name}: {what} has no reason");
            }
            for path in recipe.trim.keys().chain(recipe.folders.keys()).chain(recipe.files.keys()) {
                assert!(path.starts_with('/'), "{name}: {path} is not absolute");
            }
        }
    }

    /// Python's `ssl` did not import: `base` leaves libzstd1 out, `python` asks for it, and it was not there.
    #[test]
    fn no_recipe_leaves_out_what_it_asks_for() {
        for name in RECIPE_NAMES {
            let recipe = Recipe::named(name).expect("a recipe");
            let both: Vec<_> = recipe.packages.keys().filter(|name| recipe.leave_out.contains_key(*name)).collect();
            assert!(both.is_empty(), "{name}: {both:?}");
        }
    }

    /// What `guest-init` mounts on, in every runtime of a program.
    #[test]
    fn runtimes_have_the_folders_that_the_init_mounts_on() {
        for name in ["base", "python"] {
            let recipe = Recipe::named(name).expect("a recipe");
            for folder in [
                "/proc",
                "/sys",
                "/dev",
                "/run",
                "/tmp",
                "/opt",
                "/opt/code",
                "/opt/packages",
                "/data",
                "/mnt",
                "/var/lib",
                "/root",
                "/rom",
            ] {
                assert!(recipe.folders.contains_key(folder), "{name} lacks {folder}");
            }
        }
    }

    #[test]
    fn an_unknown_runtime_is_told_what_there_is() {
        let error = Recipe::named("ruby").expect_err("there is none");
        assert!(error.to_string().contains("base, python"), "{error}");
    }
}
