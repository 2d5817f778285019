// `spore serve`: one host. Puts registry, worker, API and server together, and takes them down again in order.
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/fd.h"
#include "bin/commands.h"
#include "bin/host_isolation.h"
#include "bin/host_memory.h"
#include "bin/runtime.h"
#include "bin/state_store.h"
#include "calls/async_calls.h"
#include "functions/host_key.h"
#include "functions/registry.h"
#include "gateway/api.h"
#include "gateway/server.h"
#include "host/entry.h"
#include "host/imports.h"
#include "host/initialise.h"
#include "host/state_access.h"
#include "object_store/directory_store.h"
#include "processes/tenant_processes.h"
#include "state/quota_tier.h"
#include "worker/worker.h"

namespace spore::bin {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr auto kDrainPoll = milliseconds(20);
constexpr auto kLastResponses = milliseconds(5'000);  // for clients to take the last responses

// That this process may run on.
unsigned cores() {
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return std::max(1u, std::thread::hardware_concurrency());
  return static_cast<unsigned>(std::max(1, CPU_COUNT(&allowed)));
}

struct ServeOptions {
  std::string listen = "127.0.0.1:7077";
  std::string web_listen;
  std::string data;
  std::vector<std::string> mounts;
  uint64_t file_mib_max = 256;
  std::string state = "rocksdb";
  uint64_t state_mib_max = 4'096;
  uint64_t state_tenant_mib_max = 2'048;
  size_t state_values_max = 4'096;
  uint64_t store_tenant_keys_max = 0;
  uint64_t store_tenant_mib_max = 0;
  unsigned state_threads = 8;
  unsigned state_timeout_ms = 10'000;
  unsigned lock_lease_ms = 10'000;
  uint64_t value_mib_max = 256;
  std::string keys;
  unsigned seats = cores();
  std::vector<std::string> precise_clocks;
  bool preempt = true;
  IsolationOptions isolation;
  size_t queue_max = 10'000;
  size_t queue_per_tenant_max = 5'000;
  size_t tenant_concurrency_max = 0;
  worker::ChainLimits chain;
  uint64_t tree_mib_max = 1'024;
  size_t connections_max = 8'192;
  unsigned compiler_threads = std::max(1u, std::thread::hardware_concurrency());
  uint64_t compiler_mib_max = 4'096;
  uint64_t compiler_seconds_max = 600;
  unsigned publish_threads = 2;
  uint64_t input_mib_max = 64;
  uint64_t web_body_mib_max = 64 << 10;
  uint64_t module_mib_max = 256;
  uint64_t memory_mib_max = 1'024;
  unsigned idle_timeout_ms = 60'000;
  unsigned header_timeout_ms = 10'000;
  unsigned drain_timeout_ms = 30'000;
  unsigned init_timeout_ms = 10'000;
  size_t async_in_flight = std::max(8u, 2 * std::thread::hardware_concurrency());
  uint64_t async_ttl_s = 86'400;
  uint64_t async_dead_ttl_s = 7 * 86'400;
  unsigned async_attempts = 3;
  uint64_t async_lease_ms = 30'000;
  uint64_t async_retry_base_ms = 200;
  uint64_t async_retry_cap_ms = 60'000;
  size_t async_calls_max = 1'000'000;
  size_t async_tenant_calls_max = 500'000;
  uint64_t async_mib_max = 16'384;
  uint64_t async_tenant_mib_max = 8'192;
  unsigned process_idle_s = 60;
  worker::PoolOptions pool;
  uint64_t idle_mib_max = 0;
  uint64_t memory_left_mib_min = 0;
  MemoryOptions memory;
};

// Threads that wait for the broker, which does one thing after another.
constexpr unsigned kMakers = 2;

// That run calls: one is always left for everything but calls, also while a seat is borrowed (worker/worker.h).
unsigned threads_of(const ServeOptions& options) { return options.seats + 2; }

struct Endpoint {
  std::string address;
  uint16_t port = 0;
};

Result<Endpoint> parse_endpoint(const std::string& flag, const std::string& text) {
  const size_t colon = text.rfind(':');
  const auto wrong = [&] {
    return fail(ErrorCode::kInvalidArgument, flag + " " + text + ": it is ADDRESS:PORT, as 127.0.0.1:7077 or [::1]:0");
  };
  if (colon == std::string::npos || colon == 0) return wrong();
  Endpoint out{.address = text.substr(0, colon)};
  if (out.address.front() == '[') {
    if (out.address.back() != ']') return wrong();
    out.address = out.address.substr(1, out.address.size() - 2);
  }
  if (out.address == "localhost") out.address = "127.0.0.1";
  const std::string port = text.substr(colon + 1);
  if (port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string::npos) return wrong();
  const unsigned long number = std::stoul(port);
  if (number > 65535) return wrong();
  out.port = static_cast<uint16_t>(number);
  return out;
}

Result<std::filesystem::path> data_directory(const std::string& given) {
  if (!given.empty()) return given;
  if (const char* home = std::getenv("XDG_DATA_HOME"); home && *home) return std::filesystem::path(home) / "spore";
  if (const char* home = std::getenv("HOME"); home && *home) {
    return std::filesystem::path(home) / ".local" / "share" / "spore";
  }
  return fail(ErrorCode::kInvalidArgument, "give --data DIR: neither XDG_DATA_HOME nor HOME is set");
}

Result<void> make_directory(const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return fail(ErrorCode::kInternal, "create " + directory.string() + ": " + error.message());
  return {};
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);  // what it stays below is found out when connections come
}

sigset_t ending_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

// Waits up to `timeout` for a signal that ends the host; 0 where none came.
int wait_for_signal(const sigset_t& signals, milliseconds timeout) {
  const timespec time{.tv_sec = timeout.count() / 1000, .tv_nsec = timeout.count() % 1000 * 1'000'000};
  const int signal = ::sigtimedwait(&signals, nullptr, &time);
  return signal > 0 ? signal : 0;
}

// Until `done`, or until the deadline. Another signal ends the process at once.
template <class Done>
bool wait_until(const sigset_t& signals, steady_clock::time_point deadline, Done done) {
  while (!done()) {
    if (steady_clock::now() >= deadline) return false;
    if (const int signal = wait_for_signal(signals, kDrainPoll)) ::_exit(128 + signal);
  }
  return true;
}

// --mount NAME=DIRECTORY[:rw]
Result<worker::FileRoots> file_roots_of(const std::vector<std::string>& mounts, const functions::SharedFiles& files) {
  worker::FileRoots out{.shared_files = &files};
  for (const std::string& text : mounts) {
    const auto refuse = [&](const std::string& why) {
      return fail(ErrorCode::kInvalidArgument, "--mount " + text + ": " + why);
    };
    const size_t equals = text.find('=');
    if (equals == std::string::npos) return refuse("must be NAME=DIRECTORY or NAME=DIRECTORY:rw");
    const std::string name = text.substr(0, equals);
    if (const auto named = functions::check_name_part("the name", name); !named) return refuse(named.error().message);
    worker::HostDirectory directory{.path = text.substr(equals + 1)};
    if (directory.path.ends_with(":rw")) {
      directory.path.resize(directory.path.size() - 3);
      directory.access = host::Access::kReadWrite;
    }
    std::error_code error;
    directory.path = std::filesystem::canonical(directory.path, error).string();
    if (error || !std::filesystem::is_directory(directory.path)) return refuse("there is no such directory");
    if (!out.directories.emplace(name, std::move(directory)).second) return refuse("the name was given before");
  }
  return out;
}

calls::AsyncOptions async_options(const ServeOptions& options) {
  return {.store = {.calls_max = options.async_calls_max,
                    .calls_per_tenant_max = options.async_tenant_calls_max,
                    .bytes_max = options.async_mib_max << 20,
                    .bytes_per_tenant_max = options.async_tenant_mib_max << 20},
          .in_flight_max = options.async_in_flight,
          .lease = milliseconds(options.async_lease_ms),
          .result_ttl = std::chrono::seconds(options.async_ttl_s),
          .dead_ttl = std::chrono::seconds(options.async_dead_ttl_s),
          .retry_base = milliseconds(options.async_retry_base_ms),
          .retry_cap = milliseconds(options.async_retry_cap_ms),
          .attempts_default = options.async_attempts};
}

Result<void> check_entry_and_imports(const wasm::ModuleInfo& module) {
  TRY(host::link(module));
  TRY(host::find_entry(module));
  return {};
}

// As in a URL: "[::1]:7077".
std::string text_of(const Endpoint& endpoint, uint16_t port) {
  const bool ipv6 = endpoint.address.find(':') != std::string::npos;
  return (ipv6 ? "[" + endpoint.address + "]" : endpoint.address) + ":" + std::to_string(port);
}

Result<void> serve(const ServeOptions& options) {
  ASSIGN_OR_RETURN(const Endpoint endpoint, parse_endpoint("--listen", options.listen));
  Endpoint web;
  if (!options.web_listen.empty()) {
    ASSIGN_OR_RETURN(web, parse_endpoint("--web-listen", options.web_listen));
  }
  gateway::Access access;
  if (!options.keys.empty()) {
    ASSIGN_OR_RETURN(access, gateway::Access::from_file(options.keys));
  }
  const auto is_loopback = [](const std::string& address) { return address == "::1" || address.starts_with("127."); };
  if (!is_loopback(endpoint.address) && !access.has_keys()) {
    return fail(ErrorCode::kPermissionDenied,
                "will not listen on " + endpoint.address + " without keys: everybody could publish; give --keys FILE");
  }
  if (!web.address.empty() && !is_loopback(web.address) && !access.has_keys()) {
    return fail(ErrorCode::kPermissionDenied,
                "will not listen on " + web.address + " without keys: everybody could call; give --keys FILE");
  }
  const sigset_t signals = ending_signals();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // every thread inherits this; the main thread waits for them
  raise_descriptor_limit();

  MemoryOptions memory_options = options.memory;
  memory_options.left_bytes_min = options.memory_left_mib_min << 20;
  ASSIGN_OR_RETURN(const auto memory, HostMemory::begin(memory_options));
  ASSIGN_OR_RETURN(const auto isolation,
                   HostIsolation::begin(options.isolation, threads_of(options), {endpoint.port, web.port}));

  ASSIGN_OR_RETURN(const auto directory, data_directory(options.data));
  TRY(make_directory(directory));
  // Two hosts in one folder would each miss what the other publishes: the second is refused.
  ASSIGN_OR_RETURN(const auto store, object_store::DirectoryStore::open(directory / "store", {.exclusive = true}));
  ASSIGN_OR_RETURN(const Bytes host_key, functions::load_or_make_host_key(directory / "key"));
  ASSIGN_OR_RETURN(const auto arena, start_runtime(host_key));
  const compiler::ChildCompiler compiler({.memory_bytes_max = options.compiler_mib_max << 20,
                                          .cpu_seconds_max = options.compiler_seconds_max,
                                          .wall_seconds_max = options.compiler_seconds_max},
                                         compiler::default_compiler(), isolation->compiler_starter());
  functions::RegistryOptions registry_options;
  registry_options.host_key = host_key;
  ASSIGN_OR_RETURN(registry_options.cpu_level, wasm::cpu_level_of_this_machine());
  registry_options.compiler_threads = options.compiler_threads;
  registry_options.module_bytes_max = options.module_mib_max << 20;
  ASSIGN_OR_RETURN(auto shared_files, functions::SharedFiles::open((directory / "files").string()));
  ASSIGN_OR_RETURN(const auto state_store, open_state_store(options.state, directory / "state", IfMissing::kMake));
  state::StoreQuota quota;
  if (options.store_tenant_keys_max) quota.keys_max = options.store_tenant_keys_max;
  if (options.store_tenant_mib_max) quota.bytes_max = options.store_tenant_mib_max << 20;
  state::QuotaTier state(*state_store, quota);
  auto tracker = state::WindowTracker::start(options.seats, isolation->take_faults());
  if (!tracker) std::fprintf(stderr, "spore: functions cannot map state: %s\n", tracker.error().message.c_str());
  state::LocalTier local_state(state, tracker ? tracker->get() : nullptr,
                               {.bytes_max = options.state_mib_max << 20,
                                .bytes_per_tenant_max = options.state_tenant_mib_max << 20,
                                .replicas_max = options.state_values_max,
                                .replicas_per_tenant_max = options.state_values_max / 2,
                                .memory = &memory->books()});
  state::BlockingPool state_threads({.threads = options.state_threads});
  state::LockService locks(state, {.lease = milliseconds(options.lock_lease_ms)});
  const host::StateServices state_services{
      .tier = &local_state, .pool = &state_threads, .locks = &locks, .timeout = milliseconds(options.state_timeout_ms)};
  state::BlockingPool makers({.threads = kMakers});
  isolation->open_network();
  ASSIGN_OR_RETURN(const worker::FileRoots file_roots, file_roots_of(options.mounts, shared_files));
  processes::TenantProcesses* apart = nullptr;  // set before the first call can come
  const functions::HostHooks hooks{
      .check = check_entry_and_imports,
      .admit = [&isolation, &file_roots](const auto& id, const auto& config) -> Result<void> {
        TRY(isolation->admit(id, config));
        // Its initialisers will not run here, which would find out.
        if (isolation->runs_apart(id, config)) TRY(worker::file_view(id, config, file_roots));
        return {};
      },
      .runs_apart = [&isolation](const auto& id, const auto& config) { return isolation->runs_apart(id, config); },
      .changed =
          [&apart](const auto& id) {
            if (apart) apart->forget(id);
          },
      .prepare_network = [&isolation](const auto& id,
                                      const auto& policy) { return isolation->prepare_network(id, policy); },
      .initialise =
          [timeout = milliseconds(options.init_timeout_ms), &file_roots, &memory](
              std::shared_ptr<const faaslet::ProtoFaaslet> instantiated, const functions::FunctionId& id,
              const functions::FunctionConfig& config) -> Result<std::shared_ptr<const faaslet::ProtoFaaslet>> {
        ASSIGN_OR_RETURN(auto preopens, worker::file_view(id, config, file_roots));
        return host::initialise(std::move(instantiated), {.name = id.text(),
                                                          .arguments = config.arguments(id.name),
                                                          .environment = config.environment(),
                                                          .preopens = std::move(preopens),
                                                          .timeout = timeout,
                                                          .memory = memory->books().account_of(id.tenant)});
      },
      .count_image = [&memory](const auto& id, uint64_t bytes) { return memory->count_image(id, bytes); }};
  ASSIGN_OR_RETURN(const auto registry,
                   functions::Registry::open(*store, compiler, *arena, hooks, std::move(registry_options)));

  // The worker ends its attempts when it goes, so it goes first.
  ASSIGN_OR_RETURN(const auto calls,
                   calls::AsyncCalls::open(directory / "calls", *store, *registry, async_options(options)));

  gateway::Server* wakes = nullptr;  // set before the first call can come
  worker::PoolOptions pool = options.pool;
  const worker::SlotLimit slots = worker::slot_limit();
  const bool slots_as_asked = pool.slots_max != 0 && pool.slots_max <= slots.slots;
  if (!slots_as_asked) pool.slots_max = slots.slots;
  const isolation::MemorySupply& supply = memory->watch().supply();
  pool.idle_bytes_max = options.idle_mib_max ? options.idle_mib_max << 20 : supply.in_all().bytes / 4;
  pool.memory_left_min = memory->watch().left_min_bytes();
  pool.memory_available = [&supply] { return supply.left().bytes; };
  worker::ChainLimits chain = options.chain;
  chain.tree_bytes_max = options.tree_mib_max << 20;
  chain.input_bytes_max = options.input_mib_max << 20;
  gateway::Api* ends = nullptr;  // the same
  const worker::ChainHooks chain_hooks{
      .ended = [&ends](worker::CallResult& result, const functions::LoadedFunction& function,
                       uint64_t input) { ends->chained_call_ended(result, function, input); },
      .begin_detached = [&calls](const functions::FunctionId& id, std::optional<uint64_t> version, Bytes input,
                                 const std::string& once) -> Result<worker::CallId> {
        ASSIGN_OR_RETURN(const auto accepted, calls->accept({.function = id,
                                                             .version = version.value_or(0),
                                                             .input = std::move(input),
                                                             .key = "detached-" + to_hex(as_bytes(once))}));
        return accepted.record.id;
      }};
  processes::TenantProcesses processes(
      {.processes_max = options.isolation.processes_max,
       .idle_max = std::chrono::seconds(options.process_idle_s),
       .calls_max = options.queue_per_tenant_max,
       .request_threads = options.state_threads,
       .seats = options.seats,
       .tenant_concurrency_max = options.tenant_concurrency_max,
       .precise_clocks = {options.precise_clocks.begin(), options.precise_clocks.end()},
       .preempt = options.preempt,
       .chain = chain,
       .pool = pool,
       .state_bytes_max = std::min(options.state_tenant_mib_max, options.state_mib_max) << 20,
       .state_values_max = options.state_values_max / 2,
       .state_threads = options.state_threads,
       .state_timeout = milliseconds(options.state_timeout_ms),
       .lock_lease = milliseconds(options.lock_lease_ms),
       .initialise_timeout = milliseconds(options.init_timeout_ms)},
      {.broker = isolation->broker(),
       .registry = registry.get(),
       .state = &state,
       .network = isolation->network(),
       .resolver = isolation->resolver(),
       .memory = &memory->books(),
       .file_roots = file_roots,
       .hooks = chain_hooks});
  apart = &processes;
  worker::Worker worker({.seats = options.seats,
                         .queue_max = options.queue_max,
                         .queue_per_tenant_max = options.queue_per_tenant_max,
                         .precise_clocks = {options.precise_clocks.begin(), options.precise_clocks.end()},
                         .preempt = options.preempt,
                         .tenant_concurrency_max = options.tenant_concurrency_max,
                         .chain = chain,
                         .memory = &memory->books(),
                         .memory_wait = milliseconds(options.memory.wait_ms),
                         .pool = pool,
                         .file_roots = file_roots,
                         .state = &state_services,
                         .makers = &makers,
                         .cpu_groups = isolation->cpu_groups(),
                         .network = isolation->network(),
                         .resolver = isolation->resolver(),
                         .registry = registry.get(),
                         .runner = &processes},
                        [&] { wakes->post([&] { worker.run_queued(); }); });
  local_state.on_shortage([&worker] { worker.drop_windows(); });
  memory->connect(worker, local_state, *registry);
  isolation->add_boundary("memory", memory->text());
  gateway::Api api(*registry, worker, std::move(access),
                   {.boundaries = isolation->boundaries(),
                    .call_input_bytes_max = options.input_mib_max << 20,
                    .web_bytes_max = options.web_body_mib_max << 20,
                    .module_bytes_max = options.module_mib_max << 20,
                    .shared_files = &shared_files,
                    .file_bytes_max = options.file_mib_max << 20,
                    .state = &state,
                    .value_bytes_max = options.value_mib_max << 20,
                    .calls = calls.get(),
                    .memory = &memory->books(),
                    .memory_watch = &memory->watch(),
                    .publish_threads = options.publish_threads});
  ends = &api;
  worker.set_hooks(chain_hooks);
  ASSIGN_OR_RETURN(const auto server, gateway::Server::listen({.address = endpoint.address,
                                                               .port = endpoint.port,
                                                               .web_address = web.address,
                                                               .web_port = web.port,
                                                               .connections_max = options.connections_max,
                                                               .memory_bytes_max = options.memory_mib_max << 20,
                                                               .header_timeout_ms = options.header_timeout_ms,
                                                               .idle_timeout_ms = options.idle_timeout_ms},
                                                              api));
  wakes = server.get();
  api.serve(*server);

  std::vector<std::jthread> threads;
  for (unsigned i = 0; i < threads_of(options); ++i) {
    threads.emplace_back([&] {
      isolation->on_guest_thread();
      const worker::Worker::Attachment attachment(worker);
      server->run();
    });
  }
  calls->start(worker);
  memory->start();
  std::printf("spore: listening on http://%s (%u seats, data in %s)\n", text_of(endpoint, server->port()).c_str(),
              options.seats, directory.c_str());
  if (const auto port = server->web_port())
    std::printf("spore: web handlers at http://%s/fn/\n", text_of(web, *port).c_str());
  std::printf("spore: state in %s\n", state.name().c_str());
  std::printf("spore: memory: %s\n", memory->text().c_str());
  std::printf("spore: at most %zu Faaslets in memory, bound by %s; %zu idle ones with those that are parked\n",
              pool.slots_max, slots_as_asked ? "--faaslets" : slots.bound_by.c_str(), pool.idle_max);
  for (const isolation::Boundary& boundary : isolation->boundaries().all())
    if (!boundary.why_not.empty())
      std::printf("spore: not enforced: %s: %s\n", boundary.name.c_str(), boundary.why_not.c_str());
  std::fflush(stdout);

  int signal = 0;
  while (!signal) signal = wait_for_signal(signals, milliseconds(3'600'000));
  std::fprintf(stderr, "spore: draining\n");
  api.drain();
  calls->drain();
  worker.drain();
  server->drain();
  const auto idle = [&] { return worker.stats().idle() && api.pending() == 0 && calls->idle(); };
  if (!wait_until(signals, steady_clock::now() + milliseconds(options.drain_timeout_ms), idle)) {
    std::fprintf(stderr, "spore: calls still run after %u ms; they are cancelled\n", options.drain_timeout_ms);
    worker.cancel_all();
  }
  calls->stop();
  api.finish();
  const auto all_answered = [&] { return worker.stats().idle() && server->stats().open == 0; };
  wait_until(signals, steady_clock::now() + kLastResponses, all_answered);
  worker.cancel_all();  // what finish() still handed over
  processes.stop();
  memory->stop();
  server->stop();
  threads.clear();
  std::fprintf(stderr, "spore: stopped\n");
  return {};
}

}  // namespace

void add_serve(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* serve_app = app.add_subcommand("serve", "Serve functions over HTTP");
  const auto add = [&](const std::string& name, auto& value, const std::string& help) {
    std::string variable = "SPORE_" + name.substr(2);
    for (char& c : variable) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
    return serve_app->add_option(name, value, help)->envname(variable)->capture_default_str();
  };
  add("--listen", options->listen, "Address and port; port 0 takes any free one")->type_name("ADDRESS:PORT");
  add("--web-listen", options->web_listen, "An address for web handlers alone; --listen then does not serve them")
      ->type_name("ADDRESS:PORT");
  add("--data", options->data, "Folder of everything that survives a restart; default: ~/.local/share/spore")
      ->type_name("DIR");
  add("--keys", options->keys, "JSON file of keys; needed for any address but loopback")->type_name("FILE");
  add("--seats", options->seats, "Calls that run at once")->check(CLI::Range(1, 1024));
  add("--preempt", options->preempt,
      "Calls that compute for long make way for others; false: each keeps its seat to its end");
  add("--cpu-groups", options->isolation.cpu_groups,
      "Whether guests' CPU weights are kept to, by a cgroup for each thread");
  add("--isolation", options->isolation.where,
      "process: calls run in a process for each tenant; shared: in this one, unless the function says otherwise")
      ->check(CLI::IsMember({"shared", "process"}));
  add("--isolate-tenant", options->isolation.apart_tenants, "A tenant whose calls run in a process of its own")
      ->type_name("TENANT");
  add("--processes", options->isolation.processes_max, "Processes of tenants at once")->check(CLI::Range(1, 1'000));
  add("--process-idle", options->process_idle_s, "How long one stays without a call, in s")
      ->check(CLI::Range(1, 86'400));
  add("--lockdown", options->isolation.lockdown,
      "Whether the host gives up capabilities and system calls that it does not need when it has started");
  add("--network", options->isolation.network, "Whether functions can have networks of their own");
  serve_app
      ->add_option("--network-reach", options->isolation.reachable,
                   "A private range of addresses (CIDR) that functions may be allowed to reach; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  add("--network-resolver", options->isolation.resolver, "Address of the server that functions ask for names")
      ->type_name("ADDRESS");
  add("--networks", options->isolation.network_limits.namespaces_max, "Faaslets with a network at once")
      ->check(CLI::Range(1u, isolation::kNamespacesMaxMax));
  add("--networks-ready", options->isolation.networks_ready, "Networks prepared ahead")->check(CLI::Range(0, 1'000));
  add("--queue", options->queue_max, "Calls that may wait")->check(CLI::Range(0, 1'000'000));
  add("--tenant-queue", options->queue_per_tenant_max, "Of them, calls of one tenant")->check(CLI::Range(0, 1'000'000));
  add("--precise-clock", options->precise_clocks,
      "A tenant whose functions may tell nanoseconds; others tell microseconds")
      ->type_name("TENANT");
  add("--tenant-concurrency", options->tenant_concurrency_max,
      "Calls of one tenant that run at once; 0: as many as there are seats")
      ->check(CLI::Range(0, 1'000'000));
  add("--chain-depth", options->chain.depth_max, "Calls below each other: a call, its call, and so on")
      ->check(CLI::Range(0, 100'000));
  add("--chain-children", options->chain.children_max, "Calls that one call has made and not closed")
      ->check(CLI::Range(0, 1'000'000));
  add("--chain-calls", options->chain.tree_calls_max, "Calls that one call from outside leads to")
      ->check(CLI::Range(0, 10'000'000));
  add("--chain-mib", options->tree_mib_max, "Their inputs and outputs, at once")->check(CLI::Range(1, 1 << 20));
  add("--connections", options->connections_max, "Connections open at once")->check(CLI::Range(1, 1'000'000));
  add("--compiler-threads", options->compiler_threads, "Threads of one compilation")->check(CLI::Range(1, 256));
  add("--compiler-mib", options->compiler_mib_max, "Memory of one compilation")->check(CLI::Range(64, 1 << 20));
  add("--compiler-seconds", options->compiler_seconds_max, "CPU time of one compilation, and time by the clock")
      ->check(CLI::Range(1, 86'400));
  add("--publish-threads", options->publish_threads, "Publishes at once")->check(CLI::Range(1, 64));
  add("--input-mib", options->input_mib_max, "Largest input of a call")->check(CLI::Range(1, 1024));
  add("--web-body-mib", options->web_body_mib_max, "Largest body of a request to a web handler")
      ->check(CLI::Range(1, 1 << 30));
  add("--module-mib", options->module_mib_max, "Largest module")->check(CLI::Range(1, 1024));
  add("--memory-mib", options->memory_mib_max, "Of all request bodies and unsent responses together")
      ->check(CLI::Range(1, 1 << 20));
  add("--header-timeout", options->header_timeout_ms, "For a request's header to arrive, in ms")
      ->check(CLI::Range(1, 3'600'000));
  add("--idle-timeout", options->idle_timeout_ms, "Between requests of a connection, in ms")
      ->check(CLI::Range(1, 3'600'000));
  add("--drain-timeout", options->drain_timeout_ms, "For running calls to end at SIGTERM, in ms")
      ->check(CLI::Range(0, 3'600'000));
  add("--faaslets", options->pool.slots_max,
      "Faaslets in memory at once; 0, or more than the machine has room for: what it has room for")
      ->check(CLI::Range(0, 1'000'000));
  add("--spare-slots", options->pool.spare_slots, "Of their slots, those prepared ahead")->check(CLI::Range(0, 10'000));
  add("--idle", options->pool.idle_max, "Faaslets kept for a next call, with those that are parked without a slot")
      ->check(CLI::Range(0, 10'000'000));
  add("--tenant-idle", options->pool.idle_per_tenant_max, "Of them, those of one tenant")
      ->check(CLI::Range(0, 10'000'000));
  add("--function-idle", options->pool.idle_per_function_max, "Of them, those of one function")
      ->check(CLI::Range(0, 10'000'000));
  add("--idle-mib", options->idle_mib_max, "Memory that they may hold; 0: a quarter of the machine's")
      ->check(CLI::Range(0, 1 << 30));
  add("--memory", options->memory.host_bytes,
      "What guests may have of this machine's memory, all together; 0: four fifths of what is left at the start")
      ->type_name("SIZE")
      ->transform(CLI::AsSizeValue(false));
  add("--tenant-memory", options->memory.tenant_bytes, "Of that, one tenant's; 0: half")
      ->type_name("SIZE")
      ->transform(CLI::AsSizeValue(false));
  serve_app
      ->add_option("--tenant-memory-of", options->memory.tenants, "Of a tenant that may have more or less than that")
      ->type_name("TENANT=SIZE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  add("--memory-wait", options->memory.wait_ms, "For memory that a call needs to begin, in ms")
      ->check(CLI::Range(0, 3'600'000));
  add("--memory-left-mib", options->memory_left_mib_min,
      "Where less than this is left on the machine, or below the limit of its cgroup, idle Faaslets go, and below half "
      "of it calls wait; 0: a 20th")
      ->check(CLI::Range(0, 1 << 30));
  add("--init-timeout", options->init_timeout_ms, "For a function's initialisers at its publish, in ms")
      ->check(CLI::Range(1, 3'600'000));
  add("--file-mib", options->file_mib_max, "Largest shared file")->check(CLI::Range(1, 1 << 20));
  add("--state", options->state, "Where state values are kept; default: in `state` of the data folder")
      ->type_name("rocksdb[:DIR]");
  add("--state-mib", options->state_mib_max, "What this host holds of state values at most")
      ->check(CLI::Range(1, 1 << 30));
  add("--tenant-state-mib", options->state_tenant_mib_max, "Of that, of one tenant's")->check(CLI::Range(1, 1 << 30));
  add("--state-values", options->state_values_max, "How many values it holds; half of them of one tenant")
      ->check(CLI::Range(2, 1'000'000));
  add("--tenant-store-keys", options->store_tenant_keys_max, "Values of one tenant in the store; 0: any number")
      ->check(CLI::Range(0, 1'000'000'000));
  add("--tenant-store-mib", options->store_tenant_mib_max, "Their sizes together; 0: any")
      ->check(CLI::Range(0, 1 << 30));
  add("--state-threads", options->state_threads, "Operations on the store of state at once")->check(CLI::Range(1, 256));
  add("--state-timeout", options->state_timeout_ms, "For one of them, in ms")->check(CLI::Range(1, 3'600'000));
  add("--lock-lease", options->lock_lease_ms,
      "How long a global lock outlives a host that is gone, in ms; it is renewed at a third")
      ->check(CLI::Range(100, 3'600'000));
  add("--value-mib", options->value_mib_max, "Largest body of a request that writes a state value")
      ->check(CLI::Range(1, 4096));
  add("--async-in-flight", options->async_in_flight, "Asynchronous calls that are run at once")
      ->check(CLI::Range(1, 10'000));
  add("--async-ttl", options->async_ttl_s,
      "How long their results are kept, in s; with an Idempotency-Key at least a day")
      ->check(CLI::Range(1, 366 * 86'400));
  add("--async-dead-ttl", options->async_dead_ttl_s, "How long dead letters are kept, in s")
      ->check(CLI::Range(1, 366 * 86'400));
  add("--async-attempts", options->async_attempts, "Attempts of a call that does not say how many")
      ->check(CLI::Range(1u, calls::kAttemptsMax));
  add("--async-lease", options->async_lease_ms,
      "How long an attempt whose end cannot be stored is left alone, in ms; others renew it")
      ->check(CLI::Range(100, 3'600'000));
  add("--async-retry-base", options->async_retry_base_ms,
      "The longest pause after a first failure, in ms; doubled with each further one")
      ->check(CLI::Range(0, 3'600'000));
  add("--async-retry-cap", options->async_retry_cap_ms, "The longest pause after any, in ms")
      ->check(CLI::Range(0, 86'400'000));
  add("--async-calls", options->async_calls_max, "Asynchronous calls that are stored, ended or not")
      ->check(CLI::Range(1, 100'000'000));
  add("--async-tenant-calls", options->async_tenant_calls_max, "Of them, of one tenant")
      ->check(CLI::Range(1, 100'000'000));
  add("--async-mib", options->async_mib_max, "What they, their inputs and outputs take")->check(CLI::Range(1, 1 << 30));
  add("--async-tenant-mib", options->async_tenant_mib_max, "Of that, of one tenant's")->check(CLI::Range(1, 1 << 30));
  add("--mount", options->mounts, "A directory that functions may mount as host:NAME, read-only unless :rw follows")
      ->type_name("NAME=DIRECTORY[:rw]");
  serve_app->footer(
      "Every flag has a variable: --queue is SPORE_QUEUE. SIGTERM drains and exits 0; a second one exits at once.");
  serve_app->callback([options, &exit_code] {
    if (const auto served = serve(*options); !served) {
      std::fprintf(stderr, "spore: %s\n", served.error().message.c_str());
      exit_code = 1;
    }
  });
}

}  // namespace spore::bin
