//! Configurations, parameter tables and plans.

use std::path::Path;

use fusion_core::HostTensors;
use fusion_core::grow::DirectSum;
use fusion_core::plan::{Fill, FusionPlan, Normalisation, StandardDeviation};
use fusion_core::random::Philox;
use serde_json::json;
use t5_model::method::{DepthAlignment, Fuse, FusionParent, GrowthMethod};
use t5_model::{Error, Initialization, T5Config, initialize, parameter_table, position_bucket};

/// Tables 6 and 7: heads, d_kv, d_ff by d_model.
fn paper(name: &str) -> T5Config {
    let (d_model, heads, d_kv, d_ff) = match name {
        "T5-Small" => (512, 6, 64, 1024),
        "T5-Medium" => (1024, 12, 64, 2048),
        "T5-S" => (512, 6, 128, 1024),
        "T5-M" => (1024, 12, 128, 2048),
        "T5-L" => (2048, 24, 128, 4096),
        other => panic!("the paper has no {other}"),
    };
    T5Config::v1_1(32128, d_model, heads, d_kv, d_ff, 8)
}

fn parent(label: &str, config: T5Config) -> FusionParent {
    FusionParent { label: label.into(), config, blake3: None, path: label.into() }
}

fn plan(parents: &[FusionParent], normalisation: Normalisation, cross: Fill) -> FusionPlan {
    let sum = DirectSum { normalisation, cross, weights: None };
    Fuse { sum, ..Fuse::default() }.grow(parents).unwrap().plan
}

fn child(parents: &[FusionParent], normalisation: Normalisation) -> Result<T5Config, Error> {
    let sum = DirectSum { normalisation, ..DirectSum::default() };
    Ok(Fuse { sum, ..Fuse::default() }.grow(parents)?.child)
}

#[test]
fn parameter_counts_of_the_paper() {
    let counts = ["T5-Small", "T5-Medium", "T5-S", "T5-M", "T5-L"].map(|name| {
        let count = parameter_table(&paper(name)).unwrap().parameter_count();
        format!("{name}: {count} ({} M)", (count as f64 / 1e6).round())
    });
    insta::assert_snapshot!(counts.join("\n"));
}

#[test]
fn fusing_two_t5_small_gives_t5_medium() {
    let parents = [parent("first", paper("T5-Small")), parent("second", paper("T5-Small"))];
    let cross = Fill::normal(StandardDeviation::Relative(0.01), 7);
    let plan = plan(&parents, Normalisation::Property, cross);
    insta::assert_snapshot!(plan);
    let medium = paper("T5-Medium");
    assert_eq!(plan.parameter_count(), parameter_table(&medium).unwrap().parameter_count());
    assert_eq!(child(&parents, Normalisation::Rule).unwrap(), medium);
    let grouped = child(&parents, Normalisation::Property).unwrap();
    assert_eq!(grouped.rms_norm_groups, [512, 512]);
    // The child's table matches the plan's.
    let table = parameter_table(&grouped).unwrap();
    let planned: Vec<_> = plan.params.iter().map(|param| (param.name.clone(), param.shape())).collect();
    assert_eq!(table.iter().map(|spec| (spec.name.clone(), spec.shape())).collect::<Vec<_>>(), planned);
}

#[test]
fn tied_models_fuse_in_the_final_norm() {
    let mut config = T5Config::v1_1(64, 8, 2, 4, 16, 1);
    config.tie_word_embeddings = true;
    let parents = [parent("first", config.clone()), parent("second", config)];
    insta::assert_snapshot!(plan(&parents, Normalisation::Rule, Fill::Zero));
}

#[test]
fn shallower_models_get_blocks_to_pass_through() {
    let mut deep = T5Config::v1_1(64, 8, 2, 4, 16, 5);
    let mut shallow = T5Config::v1_1(64, 6, 1, 4, 10, 3);
    shallow.set_num_decoder_layers(2);
    deep.set_num_decoder_layers(1);
    let parents = [parent("deep", deep), parent("shallow", shallow)];
    let child = child(&parents, Normalisation::Property).unwrap();
    assert_eq!((child.num_layers, child.num_decoder_layers()), (5, 2));
    let table = parameter_table(&child).unwrap();
    for depth in [DepthAlignment::Bottom, DepthAlignment::Top, DepthAlignment::Spread] {
        let fuse = Fuse { depth, ..Fuse::default() };
        let plan = fuse.grow(&parents).unwrap().plan;
        let planned = plan.params.iter().map(|param| (param.name.clone(), param.shape()));
        assert!(planned.eq(table.iter().map(|spec| (spec.name.clone(), spec.shape()))));
        let text = plan.to_string();
        let encoder: Vec<_> = text.lines().filter(|line| line.starts_with("encoder")).collect();
        insta::assert_snapshot!(format!("pass_through_{depth:?}").to_lowercase(), encoder.join("\n"));
        // All blocks' attention uses the first one's bias, wherever that is.
        let bias = plan.params.iter().filter(|param| param.name.contains("relative_attention_bias"));
        assert!(bias.flat_map(|p| p.placements.iter().map(|part| part.source == p.name)).eq([true; 4]));
        let warnings: Vec<_> = plan.warnings().iter().map(ToString::to_string).collect();
        if depth == DepthAlignment::Bottom {
            insta::assert_snapshot!(warnings.join("\n"));
        }
        assert_eq!(warnings.len(), 2);
        let cross = Fill::normal(StandardDeviation::Relative(0.01), 7);
        let fuse = Fuse { sum: DirectSum { cross, ..DirectSum::default() }, depth };
        assert_eq!(fuse.grow(&parents).unwrap().plan.warnings(), []);
    }
}

#[test]
fn what_cannot_be_fused_says_why() {
    let base = T5Config::v1_1(64, 8, 2, 4, 16, 2);
    let mut other = T5Config::v1_1(128, 8, 2, 4, 16, 2);
    other.feed_forward_proj = t5_model::FeedForward::Relu;
    other.relative_attention_num_buckets = 16;
    other.relative_attention_max_distance = 64;
    other.layer_norm_epsilon = 1e-5;
    other.decoder_start_token_id = 3;
    other.pad_token_id = 4;
    other.eos_token_id = 5.into();
    let error = |parents: &[FusionParent]| Fuse::default().grow(parents).unwrap_err().to_string();
    let all = error(&[parent("a", base.clone()), parent("b", other)]);
    let larger = parent("b", T5Config::v1_1(128, 8, 2, 4, 16, 2));
    let one = error(&[parent("a", base.clone()), larger, parent("c", base)]);
    insta::assert_snapshot!(format!("{all}\n\n{one}"));
}

#[test]
fn configurations_that_describe_no_t5_are_refused() {
    let valid = T5Config::v1_1(64, 8, 2, 4, 16, 2).to_json();
    let changes = [
        ("d_model", json!(0)),
        ("d_model", json!("wide")),
        ("vocab_size", json!(-1)),
        ("num_heads", json!(99_999_999)),
        ("num_layers", json!(2000)),
        ("relative_attention_num_buckets", json!(7)),
        ("relative_attention_max_distance", json!(16)),
        ("feed_forward_proj", json!("gated-silu")),
        ("dropout_rate", json!(1.5)),
        ("layer_norm_epsilon", json!(0)),
        ("eos_token_id", json!(64)),
        ("rms_norm_groups", json!([4, 5])),
        ("model_type", json!("llama")),
    ];
    let errors = changes.map(|(key, value)| {
        let mut config = valid.clone();
        config.insert(key.into(), value);
        T5Config::from_json(&config, Path::new("config.json")).unwrap_err().to_string()
    });
    insta::assert_snapshot!(errors.join("\n"));
}

/// transformers has a default for each; weights of other sizes are found out by their shapes.
#[test]
fn sizes_that_are_left_out_are_transformers() -> Result<(), Error> {
    let config = T5Config::from_json(&Default::default(), Path::new("config.json"))?;
    let T5Config { vocab_size, d_model, d_kv, d_ff, num_heads, num_layers, .. } = config;
    assert_eq!([vocab_size, d_model, d_kv, d_ff, num_heads, num_layers], [32128, 512, 64, 2048, 8, 6]);
    assert_eq!(config.num_decoder_layers(), 6);
    Ok(())
}

#[test]
fn a_model_with_groups_has_its_own_type() -> Result<(), Error> {
    let names = |config: &T5Config| {
        let json = config.to_json();
        (json["model_type"].clone(), json["architectures"][0].clone())
    };
    let stock = T5Config::v1_1(64, 8, 2, 4, 16, 2);
    let plain = (json!("t5"), json!("T5ForConditionalGeneration"));
    assert_eq!(names(&stock), plain);
    let parents = [parent("first", stock.clone()), parent("second", stock)];
    let mut grouped = child(&parents, Normalisation::Property)?;
    assert_eq!(names(&grouped), (json!("deep_fusion_t5"), json!("DeepFusionT5ForConditionalGeneration")));
    // Read back, trained on, and fused under the rule: a stock T5, which must not name files of another type
    // of model.
    let mut written = grouped.to_json();
    written.insert(
        "auto_map".into(),
        json!({ "AutoConfig": "configuration_deep_fusion_t5.DeepFusionT5Config" }),
    );
    grouped = T5Config::from_json(&written, Path::new("config.json"))?;
    assert!(!grouped.is_stock() && !grouped.to_json().contains_key("auto_map"));
    let parents = [parent("first", grouped.clone()), parent("second", grouped)];
    assert_eq!(names(&child(&parents, Normalisation::Rule)?), plain);
    Ok(())
}

#[test]
fn unknown_keys_are_kept() -> Result<(), Error> {
    let mut config = T5Config::v1_1(64, 8, 2, 4, 16, 2).to_json();
    config.insert("task_specific_params".into(), json!({ "summarization": { "num_beams": 4 } }));
    let read = T5Config::from_json(&config, Path::new("config.json"))?;
    assert_eq!(read.to_json()["task_specific_params"], config["task_specific_params"]);
    Ok(())
}

/// transformers 5 always writes `tie_word_embeddings: true`.
#[test]
fn scaling_follows_transformers_5s_key() -> Result<(), Error> {
    let mut config = T5Config::v1_1(64, 8, 2, 4, 16, 2).to_json();
    config.insert("tie_word_embeddings".into(), json!(true));
    assert!(T5Config::from_json(&config, Path::new("config.json"))?.scale_logits());
    config.insert("scale_decoder_outputs".into(), json!(false));
    assert!(!T5Config::from_json(&config, Path::new("config.json"))?.scale_logits());
    Ok(())
}

#[test]
fn initial_weights_have_t5s_deviations() -> Result<(), Error> {
    let config = T5Config::v1_1(512, 64, 4, 32, 256, 1);
    let weights = initialize(&config, Initialization::T5, 3)?;
    let deviation = |name: &str| {
        let data = &weights[name].data;
        (data.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / data.len() as f64).sqrt()
    };
    let block = "encoder.block.0.layer";
    for (name, expected) in [
        ("shared.weight".to_string(), 1.0),
        (format!("{block}.0.SelfAttention.q.weight"), (64.0 * 32.0f64).powf(-0.5)),
        (format!("{block}.0.SelfAttention.k.weight"), 64f64.powf(-0.5)),
        (format!("{block}.0.SelfAttention.o.weight"), 128f64.powf(-0.5)),
        (format!("{block}.0.SelfAttention.relative_attention_bias.weight"), 64f64.powf(-0.5)),
        (format!("{block}.1.DenseReluDense.wi_1.weight"), 64f64.powf(-0.5)),
        (format!("{block}.1.DenseReluDense.wo.weight"), 256f64.powf(-0.5)),
        ("lm_head.weight".into(), 64f64.powf(-0.5)),
        ("decoder.final_layer_norm.weight".into(), 1.0),
    ] {
        let tolerance = 5.0 / (2.0 * weights[&name].data.len() as f64).sqrt();
        let found = deviation(&name);
        assert!((found / expected - 1.0).abs() < tolerance, "{name}: {found} for {expected}");
    }
    assert_eq!(weights, initialize(&config, Initialization::T5, 3)?);
    assert_ne!(weights, initialize(&config, Initialization::T5, 4)?);
    Ok(())
}

/// The algebra that [`Initialization`] documents, on random vectors.
#[test]
fn mimetic_weights_match_and_copy() -> Result<(), Error> {
    let (d_model, heads, d_kv) = (128, 4, 64);
    let config = T5Config::v1_1(32, d_model, heads, d_kv, 16, 2);
    let weights = initialize(&config, Initialization::MIMETIC, 3)?;
    let apply = |name: &str, x: &[f32]| -> Vec<f32> {
        let rows = weights[name].data.chunks(x.len());
        rows.map(|row| row.iter().zip(x).map(|(weight, x)| weight * x).sum()).collect()
    };
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(x * y)).sum::<f64>();
    let vectors: Vec<Vec<f32>> = (0..40)
        .map(|seed| {
            let mut x = vec![0.0; d_model];
            Philox::new(seed, "vector").fill_normal(0, 1.0, &mut x);
            let scale = (d_model as f64 / dot(&x, &x)).sqrt() as f32;
            x.iter().map(|x| scale * x).collect()
        })
        .collect();

    let cross = "decoder.block.1.layer.1.EncDecAttention";
    let of = |name: &str, x: &[f32]| apply(&format!("{cross}.{name}.weight"), x);
    let (mut own, mut others) = (vec![], vec![]);
    for (at, x) in vectors.iter().enumerate() {
        for (other, y) in vectors.iter().enumerate() {
            let (q, k) = (of("q", x), of("k", y));
            let scores = q.chunks(d_kv).zip(k.chunks(d_kv)).map(|(q, k)| dot(q, k));
            if at == other { own.extend(scores) } else { others.extend(scores) }
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    assert!((mean(&own) - 16.0).abs() < 0.3, "{}, not twice the square root of d_kv", mean(&own));
    assert!(mean(&others).abs() < 0.05, "{}", mean(&others));
    let squares: Vec<f64> = others.iter().map(|score| score * score).collect();
    assert!((mean(&squares).sqrt() - 2.0).abs() < 0.3, "{}, not twice T5's", mean(&squares).sqrt());

    let own = ["encoder", "decoder"].map(|stack| format!("{stack}.block.1.layer.0.SelfAttention"));
    for attention in [cross, &own[0], &own[1]] {
        let of = |name: &str, x: &[f32]| apply(&format!("{attention}.{name}.weight"), x);
        // sqrt(inner / d_model) times the identity, since the heads are wider than the model.
        for x in &vectors {
            let y = of("o", &of("v", x));
            assert!(x.iter().zip(&y).all(|(x, y)| (2f32.sqrt() * x - y).abs() < 1e-4));
        }
    }

    let bias = |weights: &HostTensors, stack: &str, position: i64, head: usize| {
        let bias = &weights[&format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight")];
        bias.data[position_bucket(position, stack == "encoder", 32, 128) * heads + head]
    };
    // Every second head of the encoder looks at the token before, the others at what is near.
    let of_head = |position, head| bias(&weights, "encoder", position, head);
    assert_eq!([-2, -1, 0, 1, 2].map(|position| of_head(position, 2)), [0.0, 4.0, 0.0, 0.0, 0.0]);
    assert_eq!([0, 1, 2, 3].map(|head| of_head(-4, head)), [0.0, -2.0, 0.0, -0.5]);
    // Heads of the decoder look 1 to 4 tokens back.
    let of_head = |position, head| bias(&weights, "decoder", position, head);
    assert_eq!([0, -1, -2, -3, -4, -5].map(|position| of_head(position, 2)), [0.0, 0.0, 0.0, 4.0, 0.0, 0.0]);

    let weights = initialize(&config, "local".parse().unwrap(), 3)?;
    let of_head = |position, head| bias(&weights, "encoder", position, head);
    assert_eq!([0, -1, 1, 7, 8].map(|position| of_head(position, 0)), [0.0, -1.0, -1.0, -7.0, -8.0]);
    assert_eq!([0, 1, 2, 3].map(|head| of_head(-4, head)), [-4.0, -2.0, -1.0, -0.5]);
    Ok(())
}

/// All blocks of a stack together add what two would.
#[test]
fn deep_stacks_begin_with_smaller_steps() -> Result<(), Error> {
    let mut config = T5Config::v1_1(32, 16, 2, 8, 16, 6);
    config.set_num_decoder_layers(2);
    let scaled = initialize(&config, "copying+depth".parse().unwrap(), 3)?;
    for (name, plain) in initialize(&config, "copying".parse().unwrap(), 3)? {
        let is_output = name.ends_with(".o.weight") || name.ends_with(".wo.weight");
        let factor = if name.starts_with("encoder.") && is_output { 2.0 / 6.0 } else { 1.0 };
        let expected: Vec<f32> = plain.data.iter().map(|value| factor * value).collect();
        assert_eq!(scaled[&name].data, expected, "{name}");
    }
    Ok(())
}

#[test]
fn an_initialization_changes_only_its_parts() -> Result<(), Error> {
    let config = T5Config::v1_1(32, 16, 2, 8, 16, 2);
    let changed = |how: &str| -> Result<Vec<String>, Error> {
        let weights = initialize(&config, how.parse().unwrap(), 3)?;
        let plain = initialize(&config, Initialization::T5, 3)?;
        assert!(weights.keys().eq(plain.keys()));
        Ok(weights
            .into_iter()
            .filter(|(name, tensor)| plain[name] != *tensor)
            .map(|(name, _)| name)
            .collect())
    };
    assert_eq!(changed("t5")?, Vec::<String>::new());
    assert_eq!(changed("matching")?.len(), 4, "q and k of each cross-attention");
    assert_eq!(changed("copying")?.len(), 12, "v and o of each attention");
    assert_eq!(changed("local")?.len(), 1);
    assert_eq!(changed("previous")?.len(), 2);
    assert_eq!(changed("depth")?.len(), 0, "two blocks are not many");
    assert_eq!(changed("mimetic")?.len(), 18);
    assert_eq!(changed("local+copying")?.len(), 13);
    let shown = |how: &str| how.parse::<Initialization>().map(|how| how.to_string());
    assert_eq!(shown("local+copying+depth+previous+matching").unwrap(), "mimetic");
    assert_eq!(shown("local+matching").unwrap(), "matching+local");
    insta::assert_snapshot!(shown("matching+xavier").unwrap_err(), @r#""xavier" is none of t5, mimetic, matching, copying, local, previous and depth; parts are joined with +, as in matching+local"#);
    Ok(())
}

/// Computed by hand from Mesh TensorFlow's definition: 16 buckets per direction, 8 of them exact.
#[test]
fn position_buckets() {
    let bidirectional = |position| position_bucket(position, true, 32, 128);
    assert_eq!(
        [0, -1, -7, -8, -15, -16, -127, -128, -5000].map(bidirectional),
        [0, 1, 7, 8, 9, 10, 15, 15, 15]
    );
    assert_eq!([1, 7, 8, 128].map(bidirectional), [17, 23, 24, 31]);
    let causal = |position| position_bucket(position, false, 32, 128);
    assert_eq!([5, 0, -1, -15, -16, -128, -9999].map(causal), [0, 0, 1, 15, 16, 31, 31]);
}
