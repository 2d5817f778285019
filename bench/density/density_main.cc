// bench_density [--resident N] [--total N] [--pages N] [--sample N] [--seed N]: how many idle Faaslets does a host
// hold, and what does each of them cost?
//
// First it makes Faaslets until the process can have no more, and says what ended it. Then it makes --total of them, of
// which --resident (12,000, or as many as there can be) keep their slots and the rest is parked without one, and calls
// --sample of them, drawn at random: one without a slot gets that of the Faaslet that has been idle longest. Every
// Faaslet has been told a number of its own, which it holds in --pages pages of its memory, and must tell it again.
//
// A Faaslet that is not reset stands for the worst: one that is reset has as many pages, and nothing left when parked.
// "All in" is resident memory and page tables, in KiB. The last line is
//   bench density: resident=N parked=N resident_kb=A parked_kb=B ...
// Ends with 1 where an answer is wrong, whatever the figures are.
#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <list>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/fd.h"
#include "compiler/child.h"
#include "faaslet/faaslet.h"
#include "host/entry.h"
#include "host/imports.h"
#include "host/run.h"

namespace spore::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kTargetKib = 40;
constexpr size_t kFaasletsMax = 1'000'000;
constexpr size_t kProbes = 100;        // Faaslets that tell what one takes, before the many are made
constexpr size_t kSlotsKept = 16;      // to restore into
constexpr size_t kMappingsKept = 500;  // of max_map_count, for the rest of the process
constexpr uint64_t kMemoryKeptKib = 1 << 20;
constexpr size_t kComplaintsMax = 10;  // printed; all are counted

struct Arguments {
  size_t resident = 12'000;
  size_t total = 100'000;
  size_t pages = 2;
  size_t sample = 4'000;
  size_t seed = 0;  // 0: another one each time
};

Result<Arguments> parse_arguments(int argc, char** argv) {
  Arguments arguments;
  struct Option {
    std::string_view name;
    size_t& value;
    size_t min, max;
  };
  const Option options[] = {{"--resident", arguments.resident, 1, kFaasletsMax},
                            {"--total", arguments.total, 1, kFaasletsMax},
                            {"--pages", arguments.pages, 1, 16},
                            {"--sample", arguments.sample, 1, kFaasletsMax},
                            {"--seed", arguments.seed, 0, UINT32_MAX}};
  for (int i = 1; i < argc; i += 2) {
    const auto* const option = std::ranges::find(options, std::string_view(argv[i]), &Option::name);
    if (option == std::end(options) || i + 1 == argc)
      return fail(ErrorCode::kInvalidArgument,
                  "usage: bench_density [--resident N] [--total N] [--pages N] [--sample N] [--seed N]");
    const std::string_view text = argv[i + 1];
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), option->value);
    if (error != std::errc() || end != text.data() + text.size() || option->value < option->min ||
        option->value > option->max)
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("{} takes {} to {}, not {}", option->name, option->min, option->max, text));
  }
  return arguments;
}

// ---- what the process holds -----------------------------------------------------------------------------------------

// The lines "Name:   number kB" of a file in /proc.
std::map<std::string, uint64_t> kib_fields(const char* path) {
  std::ifstream file(path);
  std::map<std::string, uint64_t> fields;
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (colon != std::string::npos && line.ends_with(" kB"))
      fields[line.substr(0, colon)] = std::strtoull(line.c_str() + colon + 1, nullptr, 10);
  }
  return fields;
}

size_t mappings() {
  std::ifstream maps("/proc/self/maps");
  size_t lines = 0;
  for (std::string line; std::getline(maps, line);) ++lines;
  return lines;
}

uint64_t number_in(const char* path) {
  uint64_t number = 0;
  std::ifstream(path) >> number;
  return number;
}

// In KiB, but for the mappings; of the whole process, or of one Faaslet.
struct Holdings {
  double rss = 0, anonymous = 0, file = 0, shared = 0, pss = 0, page_tables = 0, heap = 0, mappings = 0,
         address_space = 0;

  static Holdings now() {
    // Freed memory that the allocator keeps is nobody's.
    ::malloc_trim(0);
    const auto status = kib_fields("/proc/self/status");
    const struct mallinfo2 heap = ::mallinfo2();
    const auto of = [&](const char* name) { return static_cast<double>(status.at(name)); };
    return {.rss = of("VmRSS"),
            .anonymous = of("RssAnon"),
            .file = of("RssFile"),
            .shared = of("RssShmem"),
            .pss = static_cast<double>(kib_fields("/proc/self/smaps_rollup").at("Pss")),
            .page_tables = of("VmPTE"),
            .heap = static_cast<double>(heap.uordblks + heap.hblkhd) / 1024,
            .mappings = static_cast<double>(bench::mappings()),
            .address_space = of("VmSize")};
  }
  Holdings since(const Holdings& before, size_t count) const {
    const auto each = [&](double Holdings::* field) {
      return (this->*field - before.*field) / static_cast<double>(count);
    };
    return {.rss = each(&Holdings::rss),
            .anonymous = each(&Holdings::anonymous),
            .file = each(&Holdings::file),
            .shared = each(&Holdings::shared),
            .pss = each(&Holdings::pss),
            .page_tables = each(&Holdings::page_tables),
            .heap = each(&Holdings::heap),
            .mappings = each(&Holdings::mappings),
            .address_space = each(&Holdings::address_space)};
  }
  // Where the heap reuses memory that the process had already, it grew by less than it holds.
  double all_in() const { return std::max(rss, heap) + page_tables; }
};

void print_heading() {
  std::printf("%-34s %8s %8s %8s %8s %8s %8s %8s %8s %9s\n", "KiB a Faaslet", "all in", "RSS", "anon", "file", "shmem",
              "PSS", "page tbl", "heap", "mappings");
}

void print(const std::string& name, const Holdings& each) {
  std::printf("%-34s %8.2f %8.2f %8.2f %8.2f %8.2f %8.2f %8.2f %8.2f %9.2f\n", name.c_str(), each.all_in(), each.rss,
              each.anonymous, each.file, each.shared, each.pss, each.page_tables, each.heap, each.mappings);
  std::fflush(stdout);
}

// ---- Faaslets -------------------------------------------------------------------------------------------------------

// As function.c reads it.
struct Request {
  uint32_t remember = 0;
  uint32_t pages = 0;
  uint64_t number = 0;
};
static_assert(sizeof(Request) == 16);

// The function, ready to restore from.
struct Program {
  std::unique_ptr<faaslet::CodeArena> arena;
  std::shared_ptr<const faaslet::ProtoFaaslet> proto;
  std::vector<faaslet::HostFunction> links;
  host::Entry entry;

  static Result<Program> make() {
    Program program;
    TRY(faaslet::install_signal_handlers());
    ASSIGN_OR_RETURN(program.arena, faaslet::CodeArena::reserve(as_bytes("bench_density")));
    ASSIGN_OR_RETURN(const Bytes wasm, read_file(BENCH_DENSITY_FUNCTION));
    ASSIGN_OR_RETURN(const Bytes compiled, compiler::ChildCompiler().compile(wasm, {}));
    ASSIGN_OR_RETURN(auto object, wasm::parse_object(compiled));
    ASSIGN_OR_RETURN(auto loaded, program.arena->load(std::move(object)));
    ASSIGN_OR_RETURN(program.proto, faaslet::ProtoFaaslet::make_instantiated(std::move(loaded)));
    ASSIGN_OR_RETURN(program.links, host::link(program.proto->module()));
    ASSIGN_OR_RETURN(program.entry, host::find_entry(program.proto->module()));
    return program;
  }
};

struct Instance {
  std::unique_ptr<host::HostState> state;
  std::unique_ptr<faaslet::Faaslet> faaslet;
  std::list<size_t>::iterator idle;  // where it is in Population::resident; while it has a slot
};

class Population {
 public:
  Population(const Program& program, faaslet::Seat& seat, size_t pages)
      : program_(program), seat_(seat), pages_(static_cast<uint32_t>(pages)) {}

  // One more, in a slot, that has been told its number.
  Result<void> add(faaslet::Slot slot) {
    const size_t index = instances_.size();
    Instance instance;
    ASSIGN_OR_RETURN(auto state, host::HostState::make({}));
    instance.state = std::make_unique<host::HostState>(std::move(state));
    ASSIGN_OR_RETURN(instance.faaslet,
                     faaslet::Faaslet::restore(std::move(slot), program_.proto, program_.links, instance.state.get()));
    TRY(call(instance, {.remember = 1, .pages = pages_, .number = number_of(index)}));
    instance.idle = resident_.insert(resident_.end(), index);
    instances_.push_back(std::move(instance));
    return {};
  }
  Result<void> add() {
    ASSIGN_OR_RETURN(auto slot, faaslet::Slot::reserve());
    return add(std::move(slot));
  }

  // Takes the slot of a Faaslet, emptied.
  Result<faaslet::Slot> park(size_t index) {
    Instance& instance = instances_[index];
    ASSIGN_OR_RETURN(auto slot, instance.faaslet->move_out());
    TRY(slot.clear());
    resident_.erase(instance.idle);
    return slot;
  }
  Result<void> reset(size_t index) {
    if (!instances_[index].faaslet->reset()) return fail(ErrorCode::kInternal, "a Faaslet could not be reset");
    return {};
  }

  bool is_resident(size_t index) const { return instances_[index].faaslet->has_slot(); }
  size_t size() const { return instances_.size(); }
  size_t resident() const { return resident_.size(); }
  size_t newest() const { return instances_.size() - 1; }

  // Whether the Faaslet tells its own number. If it has no slot, the one that has been idle longest gives up its own.
  Result<bool> ask(size_t index, uint64_t nonce) {
    Instance& instance = instances_[index];
    if (!is_resident(index)) {
      ASSIGN_OR_RETURN(auto slot, park(resident_.front()));
      TRY(instance.faaslet->move_into(std::move(slot)));
      instance.idle = resident_.insert(resident_.end(), index);
    } else {
      resident_.splice(resident_.end(), resident_, instance.idle);
    }
    const auto answered = call(instance, {.remember = 0, .pages = pages_, .number = nonce});
    if (!answered) {
      complain(fmt::format("Faaslet {}: {}", index, answered.error().message));
      return false;
    }
    uint64_t number = 0;
    const Bytes& output = instance.state->output;
    if (output.size() == sizeof(number)) std::memcpy(&number, output.data(), sizeof(number));
    const bool right = output.size() == sizeof(number) && number == number_of(index) + nonce;
    if (!right) complain(fmt::format("Faaslet {}: answered {} bytes, not its number", index, output.size()));
    instance.state->output = {};
    return right;
  }

 private:
  static uint64_t number_of(size_t index) { return (index + 1) * 0x9e37'79b9'7f4a'7c15; }

  void complain(const std::string& what) {
    if (complaints_++ < kComplaintsMax) std::printf("%s\n", what.c_str());
  }

  Result<void> call(Instance& instance, const Request& request) {
    const auto* const bytes = reinterpret_cast<const uint8_t*>(&request);
    host::CallSetup setup;
    setup.input.assign(bytes, bytes + sizeof(request));
    ASSIGN_OR_RETURN(*instance.state, host::HostState::make(std::move(setup)));
    seat_.begin_call();
    const host::CallResult result =
        host::Run(*instance.faaslet, *instance.state, program_.entry, program_.proto->initialised()).finish(seat_, {});
    seat_.end_call();
    instance.state->input = {};
    if (result.kind == host::CallResult::Kind::kExited && result.exit_code == 0) return {};
    return fail(ErrorCode::kInternal, fmt::format("ended with {} {}", result.exit_code, result.trap.message));
  }

  const Program& program_;
  faaslet::Seat& seat_;
  const uint32_t pages_;
  std::vector<Instance> instances_;
  std::list<size_t> resident_;  // the one that has been idle longest first
  size_t complaints_ = 0;
};

// ---- the run --------------------------------------------------------------------------------------------------------

// Makes Faaslets until there is no room for another.
Result<size_t> measure_limit(const Program& program, faaslet::Seat& seat, size_t pages) {
  const Holdings before = Holdings::now();
  Population population(program, seat, pages);
  for (size_t i = 0; i < kProbes; ++i) TRY(population.add());
  const Holdings each = Holdings::now().since(before, kProbes);
  const uint64_t memory_kib = kib_fields("/proc/meminfo").at("MemAvailable");
  const uint64_t memory_limit =
      memory_kib < kMemoryKeptKib
          ? 0
          : static_cast<uint64_t>(static_cast<double>(memory_kib - kMemoryKeptKib) / each.all_in());
  const uint64_t map_count = number_in("/proc/sys/vm/max_map_count");
  const double address_space_kib = 128.0 * (1 << 30);
  const std::pair<double, std::string> limits[] = {
      {address_space_kib / each.address_space,
       fmt::format("address space, {:.2f} GiB a slot of 128 TiB", each.address_space / (1 << 20))},
      {static_cast<double>(map_count - kMappingsKept) / each.mappings,
       fmt::format("vm.max_map_count, {:.1f} mappings a slot of {}", each.mappings, map_count)},
      {static_cast<double>(memory_limit), fmt::format("memory, {:.1f} KiB each of {:.1f} GiB available", each.all_in(),
                                                      static_cast<double>(memory_kib) / (1 << 20))}};
  const auto& binding = *std::ranges::min_element(limits, {}, &std::pair<double, std::string>::first);
  std::printf("Faaslets with a slot in one process, at most:\n");
  for (const auto& limit : limits)
    std::printf("  %10.0f by %s%s\n", limit.first, limit.second.c_str(), &limit == &binding ? "   <- binds" : "");
  if (&binding == &limits[2]) return static_cast<size_t>(binding.first);  // not to be tried

  std::string ended;
  while (ended.empty() && population.size() < kFaasletsMax)
    if (const auto added = population.add(); !added) ended = added.error().message;
  std::printf("  %10zu made: the next failed with \"%s\"\n\n", population.size(), ended.c_str());
  return population.size();
}

struct Times {
  std::vector<double> us;
  double at(double share) {
    if (us.empty()) return 0;
    const auto nth = us.begin() + static_cast<ptrdiff_t>(share * static_cast<double>(us.size() - 1));
    std::nth_element(us.begin(), nth, us.end());
    return *nth;
  }
};

Result<bool> measure(const Arguments& arguments) {
  std::mt19937_64 random(arguments.seed);
  ASSIGN_OR_RETURN(const Program program, Program::make());
  faaslet::Seat seat;
  ASSIGN_OR_RETURN(const size_t slots, measure_limit(program, seat, arguments.pages));
  const size_t resident_count = std::min({arguments.resident, arguments.total, slots - std::min(slots, kSlotsKept)});
  const size_t parked_count = arguments.total - resident_count;

  if (resident_count < std::min(arguments.resident, arguments.total))
    std::printf("%zu resident ones instead of %zu: there is no room for more\n", resident_count, arguments.resident);

  print_heading();
  const Holdings before = Holdings::now();
  Population population(program, seat, arguments.pages);
  for (size_t i = 0; i < resident_count; ++i) TRY(population.add());
  const Holdings resident = Holdings::now().since(before, resident_count);
  print(fmt::format("{} resident, {} dirty pages", resident_count, arguments.pages), resident);

  Holdings parked;
  if (parked_count > 0) {
    // Through one more slot, which is not there when memory is looked at.
    const Holdings before_parked = Holdings::now();
    ASSIGN_OR_RETURN(auto slot, faaslet::Slot::reserve());
    for (size_t i = 0; i < parked_count; ++i) {
      TRY(population.add(std::move(slot)));
      ASSIGN_OR_RETURN(slot, population.park(population.newest()));
    }
    {
      const faaslet::Slot gone = std::move(slot);
    }
    parked = Holdings::now().since(before_parked, parked_count);
    print(fmt::format("{} parked, {} dirty pages", parked_count, arguments.pages), parked);
  }
  const Holdings whole = Holdings::now();

  // Without repetition, so that every answer is of another Faaslet.
  std::vector<size_t> order(population.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::shuffle(order, random);
  order.resize(std::min(order.size(), arguments.sample));
  Times from_resident, from_parked;
  size_t wrong = 0;
  for (const size_t index : order) {
    Times& times = population.is_resident(index) ? from_resident : from_parked;
    const uint64_t nonce = random();
    const auto begin = Clock::now();
    ASSIGN_OR_RETURN(const bool right, population.ask(index, nonce));
    times.us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
    if (!right) ++wrong;
  }
  CHECK(population.resident() == resident_count, population.resident(), resident_count);

  // After a reset nothing is left to be written down.
  Holdings parked_after_reset;
  {
    const size_t count = std::min<size_t>(1'000, resident_count);
    Population others(program, seat, arguments.pages);
    const Holdings before_reset = Holdings::now();
    for (size_t i = 0; i < count; ++i) {
      TRY(others.add());
      TRY(others.reset(others.newest()));
      ASSIGN_OR_RETURN(const auto gone, others.park(others.newest()));
    }
    parked_after_reset = Holdings::now().since(before_reset, count);
    print(fmt::format("{} parked after a reset", count), parked_after_reset);
  }

  std::printf("\ntarget: %.0f KiB all in for a resident one with 2 dirty pages; this is %.1f\n", kTargetKib,
              resident.all_in());
  std::printf("the whole: %zu Faaslets in %.0f MiB of memory and %.0f MiB of page tables, %.0f mappings\n",
              population.size(), whole.rss / 1024, whole.page_tables / 1024, whole.mappings);
  std::printf("asked %zu of them (seed %zu): %zu wrong answers\n", order.size(), arguments.seed, wrong);
  std::printf("  %6zu resident: p50 %6.1f us, p99 %6.1f us\n", from_resident.us.size(), from_resident.at(0.5),
              from_resident.at(0.99));
  std::printf("  %6zu parked:   p50 %6.1f us, p99 %6.1f us, another one parked included\n", from_parked.us.size(),
              from_parked.at(0.5), from_parked.at(0.99));
  std::printf(
      "bench density: resident=%zu parked=%zu slots_max=%zu resident_kb=%.1f resident_rss_kb=%.1f "
      "resident_pte_kb=%.1f parked_kb=%.1f parked_reset_kb=%.1f asked=%zu wrong=%zu resident_us=%.1f "
      "parked_us=%.1f\n",
      resident_count, parked_count, slots, resident.all_in(), resident.rss, resident.page_tables, parked.all_in(),
      parked_after_reset.all_in(), order.size(), wrong, from_resident.at(0.5), from_parked.at(0.5));
  return wrong == 0;
}

}  // namespace
}  // namespace spore::bench

int main(int argc, char** argv) {
  auto arguments = spore::bench::parse_arguments(argc, argv);
  if (!arguments) {
    std::fprintf(stderr, "bench_density: %s\n", arguments.error().message.c_str());
    return 2;
  }
  if (arguments->seed == 0) arguments->seed = std::random_device()();
  const auto right = spore::bench::measure(*arguments);
  if (!right) {
    std::fprintf(stderr, "bench_density: %s\n", right.error().message.c_str());
    return 1;
  }
  return *right ? 0 : 1;
}
