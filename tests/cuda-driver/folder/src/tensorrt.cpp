// A stand-in for TensorRT 8.6, on the stand-in for the CUDA driver: one network, whatever the model file is, whose engine adds.
//
// input `images` f32 [-1, 3, 16, 24]; outputs `extra` f32 [-1, 1] and `detections` f32 [-1, 6, 2, 3]:
//   extra[n][0]      = the number of inputs that go through together
//   detections[n][k] = (k + 1) * sum(images[n]) + 1000 * the builder's optimization level
//
// The places of the functions are those of NVIDIA's headers of 8.6. A function that Millrace does not call aborts, and so does
// what TensorRT's manual forbids: a shape outside the context's profile, a profile that another context has, an address or
// memory that is missing, recorded work that is replayed after its context was changed. Batches of 5 cannot be recorded.
// Builds take MILLRACE_FAKE_TENSORRT_BUILD_MS, and one of level 5 fails.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <string>
#include <thread>
#include <vector>

namespace {
[[noreturn]] void misuse(char const* what) {
    std::fprintf(stderr, "tensorrt stand-in: MISUSE: %s\n", what);
    std::abort();
}
void unknown() { misuse("a function that is not offered here"); }

struct Dims {
    int32_t count;
    int32_t d[8];
};
Dims dims(std::vector<int32_t> const& extents) {
    Dims all{};
    all.count = int32_t(extents.size());
    for (std::size_t i = 0; i < extents.size(); i++) all.d[i] = extents[i];
    return all;
}

constexpr int PLACES = 64;
struct Table {
    void* at[PLACES];
    Table() { for (auto& place : at) place = reinterpret_cast<void*>(&unknown); }
    template <class Function> Table& set(int place, Function function) {
        at[place] = reinterpret_cast<void*>(function);
        return *this;
    }
};
// the interface and the object behind it are one: a table, and at byte 8 the pointer to the object
struct Object {
    void* const* table;
    Object* inner;
    explicit Object(Table const& table) : table(table.at), inner(this) {}
};
template <class T> void destroy(T* object) { delete object; }
template <class T> Table table_of() {
    Table table;
    table.set(1, &destroy<T>);
    return table;
}

struct Profile : Object { int32_t least = 0, most = 0; static Table const table; Profile() : Object(table) {} };
bool set_dims(Profile* profile, char const* name, int32_t selector, Dims extents) {
    if (std::strcmp(name, "images") != 0 || extents.count != 4) return false;
    (selector == 0 ? profile->least : profile->most) = extents.d[0];
    return true;
}
Table const Profile::table = table_of<Profile>().set(2, &set_dims);

struct Memory : Object { std::string bytes; static Table const table; explicit Memory(std::string b) : Object(table), bytes(std::move(b)) {} };
void const* data(Memory* memory) { return memory->bytes.data(); }
std::size_t size(Memory* memory) { return memory->bytes.size(); }
Table const Memory::table = table_of<Memory>().set(2, &data).set(3, &size);

struct Timings : Object { static Table const table; Timings() : Object(table) {} };
Memory* serialize_timings(Timings*) { return new Memory("timings"); }
Table const Timings::table = table_of<Timings>().set(2, &serialize_timings);

struct Config : Object { int32_t level = 3; std::vector<Profile*> profiles; Timings* timings = nullptr; static Table const table; Config() : Object(table) {} };
int32_t add_profile(Config* config, Profile* profile) { config->profiles.push_back(profile); return int32_t(config->profiles.size()) - 1; }
void flag(Config*, int32_t) {}
bool tactics(Config*, uint32_t) { return true; }
Timings* make_timings(Config*, void const*, std::size_t) { return new Timings; }
bool begin_with(Config* config, Timings* timings, bool) { config->timings = timings; return true; }
Timings* timings_of(Config* config) { return config->timings; }
void set_level(Config* config, int32_t level) { config->level = level; }
Table const Config::table = table_of<Config>().set(29, &add_profile).set(14, &flag).set(15, &flag).set(42, &tactics).set(44, &make_timings)
    .set(45, &begin_with).set(46, &timings_of).set(51, &set_level);

struct Tensor : Object { char const* name; std::vector<int32_t> extents; static Table const table; Tensor(char const* n, std::vector<int32_t> e) : Object(table), name(n), extents(std::move(e)) {} };
char const* tensor_name(Tensor* tensor) { return tensor->name; }
Dims tensor_dims(Tensor* tensor) { return dims(tensor->extents); }
int32_t tensor_type(Tensor*) { return 0; }
Table const Tensor::table = table_of<Tensor>().set(3, &tensor_name).set(5, &tensor_dims).set(7, &tensor_type);

Tensor tensors[] = {{"images", {-1, 3, 16, 24}}, {"extra", {-1, 1}}, {"detections", {-1, 6, 2, 3}}};
constexpr int INPUT_FLOATS = 3 * 16 * 24, OUTPUT_FLOATS = 6 * 2 * 3;
int index_of(char const* name) {
    for (int i = 0; i < 3; i++) if (std::strcmp(tensors[i].name, name) == 0) return i;
    misuse("a tensor of another name");
}

struct Network : Object { static Table const table; Network() : Object(table) {} };
int32_t inputs(Network*) { return 1; }
int32_t outputs(Network*) { return 2; }
Tensor* input(Network*, int32_t) { return &tensors[0]; }
Tensor* output(Network*, int32_t n) { return &tensors[1 + n]; }
Table const Network::table = table_of<Network>().set(19, &inputs).set(20, &input).set(21, &outputs).set(22, &output);

struct Builder : Object { static Table const table; Builder() : Object(table) {} };
Config* make_config(Builder*) { return new Config; }
Network* make_network(Builder*, uint32_t) { return new Network; }
Profile* make_profile(Builder*) { return new Profile; }
Memory* build(Builder*, Network*, Config* config) {
    char const* wait = std::getenv("MILLRACE_FAKE_TENSORRT_BUILD_MS");
    std::this_thread::sleep_for(std::chrono::milliseconds(wait ? std::atoi(wait) : 0));
    if (config->level == 5) return nullptr;
    std::string plan = "stand-in " + std::to_string(config->level);
    for (auto* profile : config->profiles) plan += " " + std::to_string(profile->least) + " " + std::to_string(profile->most);
    return new Memory(plan);
}
Table const Builder::table = table_of<Builder>().set(9, &make_config).set(11, &make_network).set(12, &make_profile).set(17, &build);

struct Engine : Object {
    int level = 0;
    std::vector<std::pair<int, int>> profiles;
    std::vector<bool> taken;
    static Table const table;
    Engine() : Object(table) {}
};
struct Context : Object {
    Engine* engine;
    int profile = -1;
    uint64_t changes = 0;
    bool has_memory;
    char* memory = nullptr;
    int together = 0;
    void* addresses[3] = {};
    static Table const table;
    Context(Engine* engine, bool has_memory) : Object(table), engine(engine), has_memory(has_memory) {
        if (!engine->taken[0]) select(0);
    }
    void select(int n) {
        if (profile >= 0) engine->taken[profile] = false;
        engine->taken[n] = true;
        profile = n;
        together = 0;
        changes++;
    }
    ~Context() { if (profile >= 0) engine->taken[profile] = false; }
};
bool set_profile(Context* context, int32_t n, void*) {
    if (n < 0 || n >= int(context->engine->profiles.size())) return false;
    if (n == context->profile) return true;
    if (context->engine->taken[n]) misuse("a profile that another context has");
    context->select(n);
    return true;
}
bool set_input_shape(Context* context, char const* name, Dims const* extents) {
    if (context->profile < 0 || index_of(name) != 0 || extents->count != 4) return false;
    auto [least, most] = context->engine->profiles[context->profile];
    if (extents->d[0] < least || extents->d[0] > most) return false;
    context->together = extents->d[0];
    context->changes++;
    return true;
}
Dims context_shape(Context* context, char const* name) {
    auto extents = tensors[index_of(name)].extents;
    extents[0] = context->together ? context->together : -1;
    return dims(extents);
}
bool set_address(Context* context, char const* name, void* address) {
    context->addresses[index_of(name)] = address;
    context->changes++;
    return true;
}
void set_memory(Context* context, void* memory) { context->memory = static_cast<char*>(memory); context->has_memory = true; }

// what a kernel has been given, by value, and what it must find as it was when it is replayed
struct Run {
    Context* context;
    uint64_t changes;
    int together, level, runs;
    float const* images;
    float *extra, *detections;
    char* memory;
};
void compute(void* data) {
    auto* run = static_cast<Run*>(data);
    if (run->runs++ > 0 && run->changes != run->context->changes) misuse("recorded work is replayed after its context was changed");
    if (run->memory) run->memory[0]++;
    for (int n = 0; n < run->together; n++) {
        double sum = 0;
        for (int i = 0; i < INPUT_FLOATS; i++) sum += run->images[n * INPUT_FLOATS + i];
        run->extra[n] = float(run->together);
        for (int k = 0; k < OUTPUT_FLOATS; k++) run->detections[n * OUTPUT_FLOATS + k] = float((k + 1) * sum + 1000 * run->level);
    }
}
bool enqueue(Context* context, void* stream) {
    for (auto* address : context->addresses) if (!address) misuse("an address is missing");
    if (!context->together || !context->has_memory) misuse("a shape or memory is missing");
    static void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    using Launch = int (*)(void*, void (*)(void*), void*);
    using Synchronize = int (*)(void*);
    static auto const launch = reinterpret_cast<Launch>(dlsym(driver, "cuLaunchHostFunc"));
    static auto const synchronize = reinterpret_cast<Synchronize>(dlsym(driver, "cuStreamSynchronize"));
    // allowed, but for a stream that records
    if (context->together == 5 && synchronize(stream) != 0) return false;
    auto* at = context->addresses;
    // never freed: it may have been recorded
    auto* run = new Run{context, context->changes, context->together, context->engine->level, 0, static_cast<float const*>(at[0]),
        static_cast<float*>(at[1]), static_cast<float*>(at[2]), context->memory};
    return launch(stream, &compute, run) == 0;
}
Table const Context::table = table_of<Context>().set(11, &set_memory).set(25, &set_profile).set(29, &set_input_shape).set(30, &context_shape)
    .set(32, &set_address).set(44, &enqueue);

Context* make_context(Engine* engine) { return new Context(engine, true); }
Context* make_context_without_memory(Engine* engine) { return new Context(engine, false); }
std::size_t memory_bytes(Engine*) { return 4096; }
Dims engine_shape(Engine*, char const* name) { return dims(tensors[index_of(name)].extents); }
int32_t engine_type(Engine*, char const*) { return 0; }
int32_t io_mode(Engine*, char const* name) { return index_of(name) == 0 ? 1 : 2; }
int32_t engine_tensors(Engine*) { return 3; }
char const* engine_tensor(Engine*, int32_t n) { return tensors[n].name; }
Table const Engine::table = table_of<Engine>().set(11, &make_context).set(13, &make_context_without_memory).set(14, &memory_bytes).set(34, &engine_shape)
    .set(35, &engine_type).set(38, &io_mode).set(45, &engine_tensors).set(46, &engine_tensor);

struct Runtime : Object { static Table const table; Runtime() : Object(table) {} };
Engine* deserialize(Runtime*, char const* bytes, std::size_t length, void*) {
    std::string text(bytes, length);
    auto engine = new Engine;
    int read = 0, least, most;
    if (std::sscanf(text.c_str(), "stand-in %d%n", &engine->level, &read) != 1) {
        delete engine;
        return nullptr;
    }
    for (char const* at = text.c_str() + read; std::sscanf(at, "%d %d%n", &least, &most, &read) == 2; at += read) engine->profiles.emplace_back(least, most);
    engine->taken.resize(engine->profiles.size());
    return engine;
}
Table const Runtime::table = table_of<Runtime>().set(2, &deserialize);

// no thin interface: its table is its own
struct Parser { void* const* table; };
bool parse(Parser*, void const*, std::size_t, char const*) { return true; }
void delete_parser(Parser* parser) { delete parser; }
Table const parser_table = Table().set(0, &parse).set(10, &delete_parser);
} // namespace

extern "C" {
int getInferLibVersion() { return 8600; }
int getInferLibBuildVersion() { return 1; }
int getNvOnnxParserVersion() { return 8600; }
void* createInferBuilder_INTERNAL(void*, int) { return new Builder; }
void* createInferRuntime_INTERNAL(void*, int) { return new Runtime; }
void* createNvOnnxParser_INTERNAL(void*, void*, int) { return new Parser{parser_table.at}; }
}
