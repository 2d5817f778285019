#include "bin/host_memory.h"

#include <malloc.h>

#include <CLI/CLI.hpp>

#include "functions/function.h"

namespace spore::bin {

using isolation::MemoryLevel;

Result<uint64_t> parse_size(const std::string& text) {
  try {
    std::string number = text;
    CLI::AsSizeValue(/*kb_is_1000=*/false)(number);  // writes the number over the text
    size_t end = 0;
    const uint64_t bytes = std::stoull(number, &end);
    if (end == number.size() && number.front() != '-') return bytes;
  } catch (const std::exception&) {
  }
  return fail(ErrorCode::kInvalidArgument, text + " is no size, as 64MB or 1GB are");
}

Result<std::unique_ptr<HostMemory>> HostMemory::begin(const MemoryOptions& options) {
  const isolation::MemoryWatchOptions watch{.places = {}, .left_min_bytes = options.left_bytes_min};
  MemoryBooksOptions books;
  books.bytes_max =
      options.host_bytes ? options.host_bytes : isolation::MemorySupply(watch.places).left().bytes / 5 * 4;
  books.bytes_per_tenant_max = options.tenant_bytes ? options.tenant_bytes : books.bytes_max / 2;
  for (const std::string& text : options.tenants) {
    const size_t equals = text.find('=');
    const auto refuse = [&](const std::string& why) {
      return fail(ErrorCode::kInvalidArgument, "--tenant-memory-of " + text + ": " + why);
    };
    if (equals == std::string::npos) return refuse("must be TENANT=SIZE");
    const std::string tenant = text.substr(0, equals);
    if (const auto named = functions::check_name_part("the tenant", tenant); !named)
      return refuse(named.error().message);
    const auto bytes = parse_size(text.substr(equals + 1));
    if (!bytes) return refuse(bytes.error().message);
    if (!books.tenant_bytes_max.emplace(tenant, *bytes).second) return refuse("the tenant was given before");
  }
  return std::unique_ptr<HostMemory>(new HostMemory(std::move(books), watch));
}

HostMemory::HostMemory(MemoryBooksOptions books, isolation::MemoryWatchOptions watch)
    : books_(books), tenant_bytes_max_(books.bytes_per_tenant_max), watch_(std::move(watch)) {}

std::string HostMemory::text() const {
  const auto mib = [](uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; };
  const isolation::MemorySupply::Amount all = watch_.supply().in_all();
  return mib(books_.total().bytes_max()) + " for guests, " + mib(tenant_bytes_max_) + " for a tenant, of " +
         mib(all.bytes) + " that " + all.bound_by + " has; " + watch_.how();
}

Result<std::shared_ptr<const void>> HostMemory::count_image(const functions::FunctionId& id, uint64_t bytes) {
  const MemoryAccountPtr account = books_.account_of(id.tenant);
  auto charge = std::make_shared<MemoryCharge>(account, MemoryKind::kImages);
  if (charge->cover(bytes) == MemoryAccount::Refusal::kNone) return charge;
  return fail(ErrorCode::kResourceExhausted,
              "no room for the " + std::to_string(bytes) + " bytes of its image: of the " +
                  std::to_string(account->total().bytes_max()) + " that the tenant may have here " +
                  std::to_string(account->total().bytes()) + " are in use");
}

void HostMemory::connect(worker::Worker& worker, state::LocalTier& state, functions::Registry& registry) {
  worker_ = &worker;
  state_ = &state;
  registry_ = &registry;
  books_.on_shortage([this](const MemoryAccount* of, uint64_t bytes) {
    worker_->make_room(of, bytes);
    const MemoryTotal& total = of ? of->total() : books_.total();
    if (const uint64_t room = total.room(); room < bytes) state_->shed(of, bytes - room);
    if (const uint64_t room = total.room(); room < bytes)
      registry_->drop_unused_images(of ? &of->tenant() : nullptr, bytes - room);
  });
}

void HostMemory::start() {
  watch_.start([this](MemoryLevel level) { look(level); });
}

void HostMemory::look(MemoryLevel level) {
  worker_->set_short_of_memory(level == MemoryLevel::kShort);
  if (level == MemoryLevel::kCalm) return;
  worker_->shed_half();
  if (level == MemoryLevel::kTight && worker_->stats().pool.idle_resident > 0) return;
  worker_->drop_windows();
  state_->shed(nullptr, UINT64_MAX);
  ::malloc_trim(0);  // what calls have given back to the process
}

}  // namespace spore::bin
