//! The program tested from outside.

/// The head of a recipe with a text and a small model; the text is `a.txt`.
macro_rules! small_model {
    () => {
        r#"
[data]
text = "a.txt"
held_out_every = 5
tokenizer = "words"
input_length = 16

[models.small]
d_model = 8
num_heads = 2
d_kv = 4
d_ff = 16
num_layers = 1
"#
    };
}

/// A model as large as two of those fused.
macro_rules! large_model {
    () => {
        r#"
[models.large]
d_model = 16
num_heads = 4
d_kv = 4
d_ff = 32
num_layers = 1
"#
    };
}

mod arguments;
#[cfg(feature = "webster")]
mod backends;
#[cfg(unix)]
mod bench_glue;
#[cfg(unix)]
mod bench_train;
#[cfg(target_os = "linux")]
mod bundle;
mod calibrate;
mod check;
mod checkpoints;
mod computation;
mod convert;
mod data;
#[cfg(all(feature = "hub", feature = "parquet"))]
mod data_fetch;
mod dependencies;
mod durable;
#[cfg(all(feature = "burn", feature = "hub", feature = "webster"))]
mod experiments;
mod export;
mod fidelity;
mod figures;
mod forward;
mod help;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "hub")]
mod hub_server;
#[cfg(unix)]
mod installed;
#[cfg(all(feature = "burn", feature = "webster"))]
mod kill;
#[cfg(any(feature = "hub", feature = "object-store"))]
mod loopback;
mod objectives;
mod odd_files;
mod optimizer;
mod page;
#[cfg(unix)]
mod places;
#[cfg(all(target_os = "linux", feature = "tch", feature = "webster"))]
mod processes;
mod program;
#[cfg(all(unix, feature = "burn", feature = "webster"))]
mod readme;
mod recipe_keys;
mod recipe_text;
mod recipes;
mod report;
#[cfg(unix)]
mod scripts;
mod seed_sets;
#[cfg(all(target_os = "linux", feature = "burn"))]
mod slurm;
#[cfg(feature = "object-store")]
mod store_server;
#[cfg(all(feature = "burn", feature = "webster"))]
mod talk;
#[cfg(all(feature = "burn", feature = "hub", feature = "object-store"))]
mod text_elsewhere;
mod trunk;
mod variables;
