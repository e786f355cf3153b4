//! Looks up methods by name.

use std::fmt;

#[cfg(feature = "clap")]
use clap::builder::PossibleValue;
use fusion_core::plan::FusionPlan;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    Fuse, FusionParent, Grown, GrowthMethod, HyperClone, Lemon, MethodSettings, Net2Net, Paper, Promise,
    Recorded, SelfFusion, SettingsError, Stack,
};
use crate::Result;

/// Any of the methods. In files, it is written as its name.
#[derive(Clone, Copy)]
pub struct Method(pub(super) &'static Definition);

/// The contents of a [`GrowthMethod`].
pub(super) struct Definition {
    name: &'static str,
    aliases: &'static [&'static str],
    paper: Paper,
    summary: &'static str,
    joins: bool,
    pub options: &'static [&'static str],
    pub check: fn(&MethodSettings) -> Result<(), SettingsError>,
    pub copies: fn(&MethodSettings) -> usize,
    pub recorded: fn(&MethodSettings, &FusionPlan) -> Recorded,
    promise: fn(&FusionPlan) -> Promise,
    pub grow: fn(&MethodSettings, &[FusionParent]) -> Result<Grown>,
}

const fn method<M: GrowthMethod>() -> Method {
    Method(
        const {
            &Definition {
                name: M::NAME,
                aliases: M::ALIASES,
                paper: M::PAPER,
                summary: M::SUMMARY,
                joins: M::JOINS,
                options: M::OPTIONS,
                check: M::check,
                copies: M::copies,
                recorded: M::recorded,
                promise: M::promise,
                grow: |settings, parents| M::from_settings(settings).grow(parents),
            }
        },
    )
}

/// All methods; the first is the default.
static METHODS: &[Method] = &[
    method::<Fuse>(),
    method::<SelfFusion>(),
    method::<HyperClone>(),
    method::<Net2Net>(),
    method::<Lemon>(),
    method::<Stack>(),
];

impl Method {
    /// All methods; the first is the default.
    pub fn all() -> impl Iterator<Item = Method> {
        METHODS.iter().copied()
    }

    /// The method of that name.
    pub fn named(name: &str) -> Option<Method> {
        Method::all().find(|method| method.name() == name || method.aliases().contains(&name))
    }

    /// See [`GrowthMethod::NAME`].
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// See [`GrowthMethod::ALIASES`].
    pub fn aliases(self) -> &'static [&'static str] {
        self.0.aliases
    }

    /// See [`GrowthMethod::PAPER`].
    pub fn paper(self) -> Paper {
        self.0.paper
    }

    /// See [`GrowthMethod::SUMMARY`].
    pub fn summary(self) -> &'static str {
        self.0.summary
    }

    /// See [`GrowthMethod::JOINS`].
    pub fn joins(self) -> bool {
        self.0.joins
    }

    /// Whether it takes this key of [`MethodSettings`].
    pub fn takes(self, option: &str) -> bool {
        self.0.options.contains(&option)
    }

    /// See [`GrowthMethod::promise`].
    pub fn promise(self, plan: &FusionPlan) -> Promise {
        (self.0.promise)(plan)
    }
}

#[cfg(feature = "clap")]
impl clap::ValueEnum for Method {
    fn value_variants<'a>() -> &'a [Self] {
        METHODS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.summary()).aliases(self.aliases().iter().copied()))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Method {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Method".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let each = |method: Method| {
            let names = std::iter::once(method.name()).chain(method.aliases().iter().copied());
            names.map(move |name| serde_json::json!({ "const": name, "description": method.summary() }))
        };
        schemars::json_schema!({ "oneOf": Method::all().flat_map(each).collect::<Vec<_>>() })
    }
}

impl Default for Method {
    fn default() -> Self {
        METHODS[0]
    }
}

impl PartialEq for Method {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Method {}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Method::named(&name).ok_or_else(|| {
            let names: Vec<String> = Method::all().map(|method| format!("`{method}`")).collect();
            let names = names.join(", ");
            serde::de::Error::custom(format!("unknown variant `{name}`, expected one of {names}"))
        })
    }
}
