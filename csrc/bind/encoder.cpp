// leanmatch._native.Encoder: shapes and dtypes are checked here and in encoder::Encoder, then the GIL is released.
#include "encoder.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "linear.h"
#include "encoder/encoder.h"
#include "encoder/workspace.h"

namespace nb = nanobind;
using namespace leanmatch::encoder;
using leanmatch::linear::Linear;

namespace {

template <class Value, int Axes>
using Array = nb::ndarray<const Value, nb::numpy, nb::ndim<Axes>, nb::c_contig, nb::device::cpu>;

template <int Axes>
using InOut = nb::ndarray<float, nb::numpy, nb::ndim<Axes>, nb::c_contig, nb::device::cpu>;

struct Name {
    const char* name;
    int value;
};
constexpr Name kActivations[] = {{"none", int(Activation::none)}, {"gelu", int(Activation::gelu)},
                                 {"relu", int(Activation::relu)}, {"gelu_tanh", int(Activation::gelu_tanh)},
                                 {"tanh", int(Activation::tanh)}, {"silu", int(Activation::silu)},
                                 {"sigmoid", int(Activation::sigmoid)}};
constexpr Name kPooling[] = {{"mean", int(Pooling::mean)}, {"cls", int(Pooling::cls)}, {"max", int(Pooling::max)},
                             {"mean_sqrt_len_tokens", int(Pooling::mean_sqrt)},
                             {"weightedmean", int(Pooling::weighted_mean)}, {"lasttoken", int(Pooling::last)}};

template <class Enum, std::size_t Count>
Enum parse(const Name (&table)[Count], const std::string& name) {
    std::string known;
    for (const Name& one : table) {
        if (name == one.name) return Enum(one.value);
        known += std::string(known.empty() ? "" : ", ") + one.name;
    }
    throw std::invalid_argument("'" + name + "' is none of " + known);
}

template <std::size_t Count>
nb::tuple names(const Name (&table)[Count]) {
    nb::list out;
    for (const Name& one : table) out.append(nb::str(one.name));
    return nb::tuple(out);
}

template <class Value, int Axes>
std::vector<Value> copied(const Array<Value, Axes>& array) {
    return std::vector<Value>(array.data(), array.data() + array.size());
}

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

const Ops* choose_ops(const std::string& level) {
    if (const Ops* ops = leanmatch::encoder::ops_of(level.c_str())) return ops;
    throw std::invalid_argument("'" + level + "' is not a level of this build");
}

bool present(const nb::dict& fields, const char* key) { return fields.contains(key) && !fields[key].is_none(); }

// (weight, bias, eps) of a LayerNorm; without a bias, of a root mean square norm.
Norm read_norm(nb::handle value) {
    const nb::tuple parts = nb::cast<nb::tuple>(value);
    Norm norm;
    norm.gamma = copied<float, 1>(nb::cast<Array<float, 1>>(parts[0]));
    norm.eps = nb::cast<float>(parts[2]);
    if (parts[1].is_none()) return norm;
    norm.beta = copied<float, 1>(nb::cast<Array<float, 1>>(parts[1]));
    require(norm.gamma.size() == norm.beta.size(), "a LayerNorm whose weight and bias differ in length");
    return norm;
}

Layer read_layer(nb::handle value) {
    std::vector<Layer::Choice> choices;
    for (nb::handle item : nb::cast<nb::list>(value)) {
        const nb::tuple parts = nb::cast<nb::tuple>(item);
        Layer::Choice choice{nb::cast<int>(parts[0]), nb::cast<PackedLinear&>(parts[1]).share(), {}};
        if (!parts[2].is_none()) choice.input_factor = copied<float, 1>(nb::cast<Array<float, 1>>(parts[2]));
        choices.push_back(std::move(choice));
    }
    return Layer(std::move(choices));
}

Block read_block(const nb::dict& fields) {
    Block block;
    for (nb::handle layer : nb::cast<nb::list>(fields["qkv"])) block.qkv.push_back(read_layer(layer));
    for (nb::handle layer : nb::cast<nb::list>(fields["up"])) block.up.push_back(read_layer(layer));
    block.out = read_layer(fields["out"]);
    block.down = read_layer(fields["down"]);
    if (present(fields, "attention_norm")) block.attention_norm = read_norm(fields["attention_norm"]);
    block.feed_forward_norm = read_norm(fields["feed_forward_norm"]);
    if (present(fields, "rotary")) block.rotary = nb::cast<int>(fields["rotary"]);
    if (present(fields, "window")) block.window = nb::cast<std::size_t>(fields["window"]);
    return block;
}

Head read_head(const nb::dict& fields) {
    const std::string kind = nb::cast<std::string>(fields["kind"]);
    Head head;
    head.kind = Head::Kind::normalize;
    if (kind == "dense") {
        head.kind = Head::Kind::dense;
        head.dense = read_layer(fields["layer"]);
        head.activation = parse<Activation>(kActivations, nb::cast<std::string>(fields["activation"]));
    } else if (kind == "layer_norm") {
        head.kind = Head::Kind::layer_norm;
        head.norm = read_norm(fields["norm"]);
    } else {
        require(kind == "normalize", "a head is dense, layer_norm or normalize");
    }
    return head;
}

Model read_model(const nb::dict& fields) {
    Model model;
    model.ops = choose_ops(nb::cast<std::string>(fields["level"]));
    model.words = nb::cast<std::shared_ptr<Table>>(fields["words"]);
    model.width = nb::cast<std::size_t>(fields["width"]);
    if (present(fields, "positions")) {
        const auto array = nb::cast<Array<float, 2>>(fields["positions"]);
        model.positions = copied<float, 2>(array);
        model.position_rows = array.shape(0);
    }
    if (present(fields, "token_type")) model.token_type = copied<float, 1>(nb::cast<Array<float, 1>>(fields["token_type"]));
    if (present(fields, "pad_id")) model.pad_id = nb::cast<std::int32_t>(fields["pad_id"]);
    if (present(fields, "embedding_norm")) model.embedding_norm = read_norm(fields["embedding_norm"]);
    if (present(fields, "projection")) model.projection = read_layer(fields["projection"]);
    for (nb::handle block : nb::cast<nb::list>(fields["blocks"]))
        model.blocks.push_back(read_block(nb::cast<nb::dict>(block)));
    for (nb::handle at : nb::cast<nb::list>(fields["order"])) model.order.push_back(nb::cast<int>(at));
    if (!model.blocks.empty()) {
        model.heads = nb::cast<std::size_t>(fields["heads"]);
        model.key_heads = nb::cast<std::size_t>(fields["key_heads"]);
        model.head_width = nb::cast<std::size_t>(fields["head_width"]);
        model.scale = nb::cast<float>(fields["scale"]);
        model.pre_norm = nb::cast<bool>(fields["pre_norm"]);
        model.gated = nb::cast<bool>(fields["gated"]);
        if (present(fields, "final_norm")) model.final_norm = read_norm(fields["final_norm"]);
        for (nb::handle one : nb::cast<nb::list>(fields["rotary"])) {
            const auto array = nb::cast<Array<float, 2>>(one);
            require(array.shape(1) == model.head_width, "rotary positions are not as wide as a head");
            model.rotary.push_back({copied<float, 2>(array), array.shape(0)});
        }
        model.inner = nb::cast<std::size_t>(fields["inner"]);
        model.activation = parse<Activation>(kActivations, nb::cast<std::string>(fields["activation"]));
    }
    if (present(fields, "rounds_attention")) model.rounds_attention = nb::cast<bool>(fields["rounds_attention"]);
    if (present(fields, "relative_bias")) {
        const auto array = nb::cast<Array<float, 2>>(fields["relative_bias"]);
        require(array.shape(1) % 2 == 1, "relative attention bias needs an odd number of columns");
        model.relative_bias = copied<float, 2>(array);
        model.relative_span = (array.shape(1) + 1) / 2;
    }
    for (nb::handle one : nb::cast<nb::list>(fields["pooling"]))
        model.pooling.push_back(parse<Pooling>(kPooling, nb::cast<std::string>(one)));
    for (nb::handle one : nb::cast<nb::list>(fields["post"])) model.post.push_back(read_head(nb::cast<nb::dict>(one)));
    return model;
}

// float32 (2, blocks, Model::inputs()), see Encoder::input_ranges.
nb::object input_ranges(const Encoder& encoder, const Array<std::int32_t, 1>& ids, const Array<std::int64_t, 1>& offsets) {
    require(offsets.size() >= 1, "offsets must hold at least the starting 0");
    require(offsets.data()[offsets.size() - 1] == std::int64_t(ids.size()), "the last offset must be the number of ids");
    const std::size_t blocks = encoder.model().blocks.size(), columns = encoder.model().inputs();
    auto out = std::make_unique<float[]>(2 * blocks * columns + 1);
    {
        nb::gil_scoped_release release;
        encoder.input_ranges({ids.data(), offsets.data(), offsets.size() - 1, nullptr}, out.get());
    }
    float* data = out.release();
    const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<3>>(data, {2, blocks, columns}, owner));
}

nb::object encode(const Encoder& encoder, const Array<std::int32_t, 1>& ids, const Array<std::int64_t, 1>& offsets,
                  int threads) {
    require(offsets.size() >= 1, "offsets must hold at least the starting 0");
    const std::size_t texts = offsets.size() - 1;
    require(offsets.data()[texts] == std::int64_t(ids.size()), "the last offset must be the number of ids");
    require(threads >= 1, "threads must be 1 or more");
    const std::size_t dimension = encoder.dimension();
    auto out = std::make_unique<float[]>(texts * dimension + 1);
    {
        nb::gil_scoped_release release;
        encoder.run({ids.data(), offsets.data(), texts, out.get()}, threads);
    }
    float* data = out.release();
    const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<2>>(data, {texts, dimension}, owner));
}

// Seconds of one call with `tokens` tokens: the best of as many calls as fit into `seconds`, at least three.
double time_layer(const PackedLinear& packed, int tokens, double seconds) {
    const Linear& layer = packed.get();
    require(tokens >= 1 && tokens <= 4096, "tokens must be 1 to 4096");
    Buffer<float> x, y;
    Buffer<std::uint8_t> scratch;
    const std::size_t inputs = std::size_t(tokens) * std::size_t(layer.inputs());
    x.reserve(inputs);
    y.reserve(std::size_t(tokens) * std::size_t(layer.outputs()));
    scratch.reserve(layer.scratch_bytes(tokens) + 64);
    for (std::size_t i = 0; i < inputs; ++i) x.data()[i] = float(int(i * 2654435761u % 2001u) - 1000) * 1e-3f;
    nb::gil_scoped_release release;
    using Clock = std::chrono::steady_clock;
    const auto since = [](Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); };
    double best = 1e9;
    const auto begin = Clock::now();
    for (int call = 0; call < 3 || since(begin) < seconds; ++call) {
        const auto start = Clock::now();
        layer.run(x.data(), tokens, y.data(), {}, scratch.data());
        best = std::min(best, since(start));
    }
    return best;
}

std::shared_ptr<Table> sparse_table(const Array<float, 3>& atoms, const Array<std::uint16_t, 3>& indices,
                                    const nb::object& codes, const nb::object& code_scale, const nb::object& values) {
    const std::size_t blocks = atoms.shape(0), per_block = atoms.shape(1), width = atoms.shape(2);
    const std::size_t rows = indices.shape(0), nonzeros = indices.shape(2);
    require(indices.shape(1) == blocks, "indices and atoms differ in blocks");
    for (std::size_t i = 0; i < indices.size(); ++i) require(indices.data()[i] < per_block, "an index without an atom");
    std::vector<std::int8_t> q;
    std::vector<float> scale, plain;
    if (codes.is_none()) {
        plain = copied<float, 3>(nb::cast<Array<float, 3>>(values));
    } else {
        q = copied<std::int8_t, 3>(nb::cast<Array<std::int8_t, 3>>(codes));
        scale = copied<float, 1>(nb::cast<Array<float, 1>>(code_scale));
        require(scale.size() == rows, "codes need one scale a row");
    }
    require(q.size() + plain.size() == indices.size(), "values and indices differ in shape");
    return std::make_shared<SparseTable>(copied<float, 3>(atoms), copied<std::uint16_t, 3>(indices), std::move(q),
                                         std::move(scale), std::move(plain), rows, blocks, per_block, width, nonzeros);
}

}  // namespace

void bind_encoder(nb::module_& module) {
    nb::class_<Table>(module, "Table", "An embedding table of the encoder.")
        .def_prop_ro("rows", &Table::rows)
        .def_prop_ro("width", &Table::width)
        .def_prop_ro("bytes", &Table::bytes)
        .def("decode",
             [](const Table& table, std::size_t row, const std::string& level) {
                 require(row < table.rows(), "no such row");
                 auto out = std::make_unique<float[]>(table.width());
                 table.decode(*choose_ops(level), row, out.get());
                 float* data = out.release();
                 const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
                 return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<1>>(data, {table.width()}, owner));
             },
             nb::arg("row"), nb::arg("level"), "One row, for tests.");
    module.def("float_table",
               [](const Array<float, 2>& values) -> std::shared_ptr<Table> {
                   return std::make_shared<FloatTable>(copied<float, 2>(values), values.shape(0), values.shape(1));
               });
    module.def("int8_table",
               [](const Array<std::int8_t, 2>& q, const Array<float, 2>& scale) -> std::shared_ptr<Table> {
                   require(q.shape(0) == scale.shape(0) && scale.shape(1) > 0 && q.shape(1) % scale.shape(1) == 0,
                           "scale must be (rows, groups) with groups dividing the width");
                   return std::make_shared<Int8Table>(copied<std::int8_t, 2>(q), copied<float, 2>(scale), q.shape(0),
                                                      q.shape(1), scale.shape(1));
               });
    module.def("sparse_table", &sparse_table, nb::arg("atoms"), nb::arg("indices"), nb::kw_only(),
               nb::arg("codes").none() = nb::none(), nb::arg("code_scale").none() = nb::none(),
               nb::arg("values").none() = nb::none());
    module.def("low_rank_table",
               [](std::shared_ptr<Table> left, const Array<float, 2>& right) -> std::shared_ptr<Table> {
                   require(left->width() == right.shape(0), "left and right differ in rank");
                   return std::make_shared<LowRankTable>(std::move(left), copied<float, 2>(right), right.shape(1));
               });

    nb::class_<Encoder>(module, "Encoder", "The encoder's graph; leanmatch.runtime makes and wraps it.")
        .def("__init__", [](Encoder* self, const nb::dict& fields) { new (self) Encoder(read_model(fields)); })
        .def("encode", &encode, nb::arg("ids"), nb::arg("offsets"), nb::arg("threads"),
             "int32 ids of all texts, int64 offsets (texts + 1): float32 (texts, dimension).")
        .def("input_ranges", &input_ranges, nb::arg("ids"), nb::arg("offsets"),
             "float32 (2, blocks, inputs of q, k and v, out, up and down): least and largest value of each input.")
        .def_prop_ro("dimension", &Encoder::dimension)
        .def_prop_ro("bytes", &Encoder::bytes)
        .def_prop_ro("most_tokens", [](const Encoder& e) { return e.most_tokens() >> 31 ? std::size_t(0) : e.most_tokens(); },
                     "Tokens of the longest text that it takes; 0 for no limit.")
        .def(
            "tune",
            [](Encoder& e, int group_tokens, int tile_tokens, int alone_tokens) {
                require(group_tokens > 0 && tile_tokens > 0 && alone_tokens > 0, "tuning values must be positive");
                e.tuning() = {group_tokens, tile_tokens, alone_tokens};
            },
            nb::arg("group_tokens"), nb::arg("tile_tokens"), nb::arg("alone_tokens"),
            "For benchmarks; not while another thread encodes.");
    module.def("time_layer", &time_layer, nb::arg("layer"), nb::arg("tokens"), nb::arg("seconds"));
    module.attr("GROUP_TOKENS") = Tuning().group_tokens;
    module.attr("TILE_TOKENS") = Tuning().tile_tokens;
    module.def("activation_names", [] { return names(kActivations); });
    module.def("pooling_names", [] { return names(kPooling); });

    // Single kernels, so that tests can hold each level to its tolerance. Arrays are changed in place.
    module.def("op_activate", [](const std::string& level, const std::string& kind, const InOut<1>& x) {
        choose_ops(level)->activate(parse<Activation>(kActivations, kind), x.size(), x.data());
    });
    module.def("op_layer_norm", [](const std::string& level, const InOut<2>& x, nb::handle norm) {
        const Norm one = read_norm(norm);
        require(one.gamma.size() == x.shape(1), "the LayerNorm does not fit x");
        one.run(*choose_ops(level), x.data(), x.shape(0), x.data());
    });
    // x (rows, 2 width): its first rows * width numbers become the gated rows.
    module.def("op_gate", [](const std::string& level, const std::string& kind, const InOut<2>& x) {
        require(x.shape(1) % 2 == 0, "a row must have two halves");
        choose_ops(level)->gate(parse<Activation>(kActivations, kind), x.shape(0), x.shape(1) / 2, x.data());
    });
    module.def("op_rotate", [](const std::string& level, const Array<float, 1>& turn, const InOut<2>& x) {
        require(x.shape(1) % 2 == 0 && turn.size() == x.shape(1), "x (heads, width) and turn (width), an even number");
        choose_ops(level)->rotate(turn.data(), x.shape(0), x.shape(1) / 2, x.data());
    });
    module.def("op_normalize", [](const std::string& level, const InOut<1>& x) {
        choose_ops(level)->normalize(x.size(), 1e-12f, x.data());
    });
    // qkv (length, 3, width): out[from:to] = attention of the one head; bias (2 length - 1) or None.
    module.def("op_attention", [](const std::string& level, const Array<float, 3>& qkv, const nb::object& bias,
                                  std::size_t from, std::size_t to, const InOut<2>& out, bool bf16,
                                  const nb::object& window) {
        const std::size_t length = qkv.shape(0), width = qkv.shape(2);
        auto* attention = choose_ops(level)->attention;
        if (bf16) {
            require(leanmatch::linear::has_bf16() && width % 32 == 0, "no bfloat16 attention here, or not of this width");
#if defined(__x86_64__) || defined(_M_X64)
            attention = attention_bf16;
#endif
        }
        require(qkv.shape(1) == 3 && out.shape(0) == length && out.shape(1) == width, "qkv (L, 3, w) and out (L, w)");
        require(from <= to && to <= length, "queries out of range");
        std::vector<float> biases;
        if (!bias.is_none()) biases = copied<float, 1>(nb::cast<Array<float, 1>>(bias));
        require(biases.empty() || biases.size() + 1 == 2 * length, "bias (2 L - 1)");
        Buffer<float> scratch;
        scratch.reserve(attention_scratch(length, width));
        const float* q = qkv.data();
        const float* centre = biases.empty() ? nullptr : biases.data() + (length - 1);
        Attention one{q, q + width, q + 2 * width, out.data(), centre, 3 * width, 3 * width, width, length, width, from, to,
                      1.0f / std::sqrt(float(width)), scratch.data()};
        if (!window.is_none()) one.window = nb::cast<std::size_t>(window);
        attention(one);
    }, nb::arg("level"), nb::arg("qkv"), nb::arg("bias").none(), nb::arg("from_row"), nb::arg("to_row"), nb::arg("out"),
       nb::arg("bf16") = false, nb::arg("window").none() = nb::none());
}
