// The engine's face to Python. Whatever is handed in is checked here or behind it; the interpreter's lock is given up
// while tokens are read.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bandwidth.h"
#include "cpu.h"
#include "philox.h"
#include "session.h"

namespace py = pybind11;

#ifdef FORMERS_X86
extern "C" const Kernel kernel_amx, kernel_vnni, kernel_avx512, kernel_avx2;
#endif
extern "C" const Kernel kernel_plain;

namespace {

const Kernel* find(const std::string& name) {
    if (runs_here(name.c_str())) {
        const std::string wanted = "kernel_" + name;
#ifdef FORMERS_X86
        for (const Kernel* kernel : {&kernel_amx, &kernel_vnni, &kernel_avx512, &kernel_avx2})
            if (wanted == kernel->name) return kernel;
#endif
        if (wanted == kernel_plain.name) return &kernel_plain;
    }
    throw std::invalid_argument("this machine does not run the kernel '" + name + "', but '" + fastest() + "'");
}

template <class T>
using Array = py::array_t<T, py::array::c_style>;
using Ints = Array<int64_t>;
using GivenOp = std::tuple<std::string, std::vector<int64_t>, std::vector<int64_t>, std::vector<int64_t>,
                           std::vector<float>, std::vector<int64_t>, std::vector<int64_t>, std::vector<int64_t>>;
using GivenCache = std::tuple<int64_t, int64_t, int64_t, int64_t, int32_t>;  // keep, heads, capacity, width, type
using GivenMatrix = std::tuple<Array<uint8_t>, int64_t, int32_t, int64_t>;  // data, columns, type, group

// A program, and the arrays that its weights stand in.
struct Held {
    std::shared_ptr<const Program> program;
    std::vector<py::object> arrays;
};

Matrix matrix_of(const GivenMatrix& given) {
    const auto& [data, columns, type, group] = given;
    if (data.ndim() != 2) throw std::invalid_argument("a packed matrix has rows and bytes");
    const Matrix matrix = {data.data(), data.shape(0), columns, data.shape(1), static_cast<Type>(type), group};
    if (const char* problem = problem_of(matrix, data.nbytes())) throw std::invalid_argument(problem);
    return matrix;
}

std::unique_ptr<Held> make_program(int64_t vocab, int64_t length, int64_t logits, const std::vector<int64_t>& widths,
                                   const std::vector<GivenCache>& caches, const std::vector<GivenOp>& ops,
                                   const std::vector<GivenMatrix>& matrices, const std::vector<Array<float>>& vectors) {
    Shapes shapes = {widths, {}, vocab, length};
    for (const auto& [keep, heads, capacity, width, type] : caches)
        shapes.caches.push_back({static_cast<Keep>(keep), heads, capacity, width, static_cast<Type>(type)});
    std::vector<OpGiven> given;
    for (const auto& [name, in, out, ints, floats, of_matrices, of_vectors, of_caches] : ops)
        given.push_back({name, in, out, ints, floats, of_matrices, of_vectors, of_caches});
    auto held = std::make_unique<Held>();
    std::vector<Matrix> packed;
    std::vector<Vector> numbers;
    for (const auto& matrix : matrices) {
        packed.push_back(matrix_of(matrix));
        held->arrays.push_back(std::get<0>(matrix));
    }
    for (const auto& vector : vectors) {
        if (vector.ndim() != 1) throw std::invalid_argument("a vector has one dimension");
        numbers.push_back({vector.data(), vector.size()}), held->arrays.push_back(vector);
    }
    held->program =
        std::make_shared<Program>(std::move(shapes), std::move(given), std::move(packed), std::move(numbers), logits);
    return held;
}

// A session, and the program that must outlive it.
struct Writing {
    py::object program;
    std::unique_ptr<Session> session;
};

void require_threads(int64_t threads) {
    if (threads < 1 || threads > 1024)
        throw std::invalid_argument("there can be 1 to 1024 threads, not " + std::to_string(threads));
}

std::unique_ptr<Writing> make_session(const py::object& program, const std::string& kernel, int64_t threads,
                                           int64_t streams, int64_t room) {
    require_threads(threads);
    auto held = std::make_unique<Writing>();
    held->program = program;
    held->session =
        std::make_unique<Session>(program.cast<const Held&>().program, find(kernel), threads, streams, room);
    return held;
}

int64_t rows_of(const Ints& tokens, const Ints& streams) {
    if (tokens.ndim() != 1 || streams.ndim() != 1 || tokens.size() != streams.size())
        throw std::invalid_argument("there must be one stream for each token");
    return tokens.size();
}

Array<float> step(Writing& held, const Ints& tokens, const Ints& streams, const Array<bool>& wanted) {
    const int64_t rows = rows_of(tokens, streams);
    if (wanted.ndim() != 1 || wanted.size() != rows)
        throw std::invalid_argument("for each token it must be said whether its logits are wanted");
    const std::vector<int64_t> t(tokens.data(), tokens.data() + rows), s(streams.data(), streams.data() + rows);
    const std::unique_ptr<bool[]> w(new bool[size_t(rows)]);
    std::copy(wanted.data(), wanted.data() + rows, w.get());
    const int64_t count = std::count(w.get(), w.get() + rows, true);
    Array<float> logits({count, held.session->program().shapes().vocab});
    float* into = logits.mutable_data();
    const py::gil_scoped_release release;
    held.session->step(t.data(), s.data(), w.get(), rows, into);
    return logits;
}

using GivenSampling = std::tuple<float, int64_t, float, float, float>;  // in the order of `Sampling`

std::vector<std::vector<int64_t>> write_on(Writing& held, const Ints& tokens, const Ints& streams, int64_t count,
                                           const std::vector<int64_t>& stops, const GivenSampling& sampling,
                                           const std::vector<uint64_t>& seeds, int64_t drawn) {
    constexpr int64_t MOST = 1 << 20;
    const int64_t rows = rows_of(tokens, streams);
    if (count < 1 || count > MOST)
        throw std::invalid_argument("1 to 1048576 tokens can be written, not " + std::to_string(count));
    const std::vector<int64_t> t(tokens.data(), tokens.data() + rows), s(streams.data(), streams.data() + rows);
    const auto& [temperature, top_k, top_p, min_p, penalty] = sampling;
    const py::gil_scoped_release release;
    return held.session->write(t.data(), s.data(), rows, count, stops, {temperature, top_k, top_p, min_p, penalty},
                               {seeds, drawn});
}

void give(Writing& held, int64_t cache, int64_t stream, const Array<float>& data) {
    const auto& caches = held.session->program().shapes().caches;
    if (cache < 0 || cache >= int64_t(caches.size()) || data.ndim() != 3 || data.shape(0) != caches[cache].heads ||
        data.shape(2) != caches[cache].width)
        throw std::invalid_argument("cache " + std::to_string(cache) + " must be given (heads, tokens, width)");
    held.session->give(cache, stream, data.data(), data.shape(1));
}

void precede(Writing& held, int64_t stream, const Array<float>& vectors) {
    const Program& program = held.session->program();
    if (program.entry() < 0) throw std::invalid_argument("streams of this program begin with their first token");
    const int64_t width = program.shapes().widths[program.ops()[program.entry()].out[0]];
    if (vectors.ndim() != 2 || vectors.shape(1) != width)
        throw std::invalid_argument("a stream begins with vectors of " + std::to_string(width) + " numbers");
    const std::vector<float> copied(vectors.data(), vectors.data() + vectors.size());
    const py::gil_scoped_release release;
    held.session->precede(stream, copied.data(), vectors.shape(0));
}

double measured(int64_t bytes, int64_t threads) {
    require_threads(threads);
    if (bytes < 1 || bytes > int64_t(1) << 40) throw std::invalid_argument("1 byte to 1 TiB can be read");
    const py::gil_scoped_release release;
    return bandwidth(bytes, threads);
}

}  // namespace

PYBIND11_MODULE(_engine, module) {
    module.doc() = "The native decode engine.";
    module.def("fastest", [] { return std::string(fastest()); });
    module.def("runs_here", [](const std::string& kernel) { return runs_here(kernel.c_str()); });
    module.def("bandwidth", &measured);
    module.def("uniform", [](uint64_t seed, uint64_t place) { return uniform(seed, place); });
    py::class_<Held>(module, "Program")
        .def(py::init(&make_program), py::kw_only(), py::arg("vocab"), py::arg("length"), py::arg("logits"),
             py::arg("widths"), py::arg("caches"), py::arg("ops"), py::arg("matrices"), py::arg("vectors"));
    py::class_<Writing>(module, "Session")
        .def(py::init(&make_session), py::arg("program"), py::kw_only(), py::arg("kernel"), py::arg("threads"),
             py::arg("streams"), py::arg("room"))
        .def("step", &step)
        .def("write", &write_on, py::arg("tokens"), py::arg("streams"), py::kw_only(), py::arg("count"), py::arg("stops"),
             py::arg("sampling"), py::arg("seeds"), py::arg("drawn"))
        .def("give", &give)
        .def("precede", &precede)
        .def("reset", [](Writing& held, int64_t stream) { held.session->reset(stream); })
        .def("length", [](Writing& held, int64_t stream) { return held.session->length(stream); })
        .def("profile", [](Writing& held, bool on) { held.session->profile(on); })
        .def("seconds", [](Writing& held) { return held.session->seconds(); })
        .def("cache_bytes", [](Writing& held) { return held.session->cache_bytes(); });
}
