#include "faaslet/code_arena.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>

#include "base/check.h"
#include "base/fd.h"
#include "base/guarded.h"
#include "faaslet/faaslet.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

extern "C" {
void spore_host_call();
void spore_trap();
void spore_enter_return();
void spore_thunk_call();
}

namespace spore::faaslet {

namespace {

constexpr uint64_t kPlacementBytes = 64 << 10;  // objects begin at multiples of this
constexpr uint64_t kProbesMax = 64;
constexpr uint64_t kStubTableOffset = 2048;  // in the stub page: where the jumps find the host's addresses

std::atomic<CodeArena*> g_arena{nullptr};  // address space is the process's, so there is one

// jmp *[rip + d], for each stub, and the addresses: the only host addresses in the arena, and no guest can read them.
Bytes stub_page() {
  static const uint64_t targets[] = {
      reinterpret_cast<uint64_t>(&spore_host_call), reinterpret_cast<uint64_t>(&spore_trap),
      reinterpret_cast<uint64_t>(&spore_enter_return), reinterpret_cast<uint64_t>(&spore_thunk_call)};
  static_assert(std::size(targets) == static_cast<size_t>(wasm::Stub::kCount));
  Bytes page(wasm::kStubPageBytes, 0xcc);
  for (uint32_t i = 0; i < std::size(targets); ++i) {
    const uint64_t entry = i * wasm::kStubBytes;
    const uint64_t slot = kStubTableOffset + 8 * i;
    const auto distance = static_cast<int32_t>(slot - (entry + 6));
    page[entry] = 0xff;
    page[entry + 1] = 0x25;
    std::memcpy(&page[entry + 2], &distance, 4);
    std::memcpy(&page[slot], &targets[i], 8);
  }
  return page;
}

Result<UniqueFd> sealed_memfd(const char* name, std::initializer_list<ByteSpan> parts) {
  ASSIGN_OR_RETURN(UniqueFd fd, make_memfd(name));
  for (ByteSpan part : parts) TRY(write_all(fd.get(), part));
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return fail_errno("seal a memory file");
  return fd;
}

}  // namespace

struct CodeArena::State {
  Bytes key;
  UniqueFd stubs;
  struct Index {
    std::map<uint64_t, LoadedObject*> by_base;
    uint64_t used_bytes = 0;
    uint64_t instances = 0;  // of cross-instance objects, which are loaded many times over
  };
  Guarded<Index> index;
  Guarded<UniqueFd> perf_map;
};

Result<std::unique_ptr<CodeArena>> CodeArena::reserve(ByteSpan placement_key) {
  CHECK(!g_arena.load(), "one code arena a process");
  void* const wanted = reinterpret_cast<void*>(wasm::kArenaBase);
  void* at = ::mmap(wanted, wasm::kArenaBytes, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (at != wanted) {
    if (at != MAP_FAILED) ::munmap(at, wasm::kArenaBytes);
    return fail(ErrorCode::kFailedPrecondition, "the address range for code (256 GiB at 0x550000000000) is taken");
  }
  std::unique_ptr<CodeArena> arena(new CodeArena);
  arena->state_ = std::make_unique<State>();
  arena->state_->key.assign(placement_key.begin(), placement_key.end());
  const Bytes page = stub_page();
  ASSIGN_OR_RETURN(arena->state_->stubs, sealed_memfd("spore-stubs", {page}));
  g_arena = arena.get();
  return arena;
}

CodeArena::~CodeArena() {
  if (state_) CHECK(state_->index.lock()->by_base.empty(), "objects are still loaded");
  g_arena = nullptr;
  ::munmap(reinterpret_cast<void*>(wasm::kArenaBase), wasm::kArenaBytes);
}

Result<std::shared_ptr<const LoadedObject>> CodeArena::load(wasm::Object object) {
  std::shared_ptr<LoadedObject> loaded(new LoadedObject);
  ASSIGN_OR_RETURN(loaded->layout_, wasm::instance_layout(object.module));
  ASSIGN_OR_RETURN(const UniqueFd file, sealed_memfd("spore-code", {object.code, object.rodata}));
  const uint64_t mapped = object.mapped_bytes();
  loaded->descriptors_offset_ = object.descriptors_offset();

  // The address: a keyed function of what the object is, so the same in every process with the key.
  ByteWriter identity;
  identity.write_bytes(object.module_digest);
  identity.write_bytes(sha256(object.code));
  identity.write_bytes(sha256(object.rodata));
  {
    auto index = state_->index.lock();
    if (object.cross_instance) identity.write(++index->instances);
    const uint64_t places = (wasm::kArenaBytes - mapped) / kPlacementBytes;
    for (uint64_t probe = 0; probe < kProbesMax && loaded->base_ == 0; ++probe) {
      ByteWriter message;
      message.write(probe);
      message.write_bytes(identity.bytes());
      const Digest digest = hmac_sha256(state_->key, message.bytes());
      uint64_t draw;
      std::memcpy(&draw, digest.data(), sizeof(draw));
      const uint64_t base = wasm::kArenaBase + draw % places * kPlacementBytes;
      const auto after = index->by_base.lower_bound(base);
      if (after != index->by_base.end() && after->first < base + mapped) continue;
      if (after != index->by_base.begin()) {
        const LoadedObject& before = *std::prev(after)->second;
        if (before.base_ + before.mapped_bytes_ > base) continue;
      }
      loaded->base_ = base;
    }
    if (loaded->base_ == 0) return fail(ErrorCode::kResourceExhausted, "the code arena has no room");
    loaded->mapped_bytes_ = mapped;
    index->by_base[loaded->base_] = loaded.get();
    index->used_bytes += mapped;
    loaded->arena_ = this;  // from here the destructor takes it out again
  }

  auto map = [&](uint64_t offset, uint64_t size, int protection, int fd, uint64_t file_offset) -> Result<void> {
    if (size == 0) return {};
    const int flags = MAP_FIXED | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
    if (::mmap(reinterpret_cast<void*>(loaded->base_ + offset), size, protection, flags, fd,
               static_cast<off_t>(file_offset)) == MAP_FAILED)
      return fail_errno("map compiled code");
    return {};
  };
  const uint64_t code = object.code.size();
  const uint64_t rodata = object.rodata.size();
  TRY(map(0, wasm::kStubPageBytes, PROT_READ | PROT_EXEC, state_->stubs.get(), 0));
  TRY(map(wasm::kStubPageBytes, code, PROT_READ | PROT_EXEC, file.get(), 0));
  TRY(map(wasm::kStubPageBytes + code, rodata, PROT_READ, file.get(), code));
  const uint64_t descriptors = loaded->descriptors_offset_;
  if (mapped > descriptors) {
    TRY(map(descriptors, mapped - descriptors, PROT_READ | PROT_WRITE, -1, 0));
    auto* entries = reinterpret_cast<wasm::FunctionDescriptor*>(loaded->base_ + descriptors);
    const uint64_t base_offset = loaded->base_ - wasm::kArenaBase;
    std::vector<wasm::TypeId> types;
    for (const wasm::Signature& signature : object.module.types) types.push_back(wasm::type_id(signature));
    for (uint32_t i = 0; i < object.functions.size(); ++i)
      entries[i] = {.code = base_offset + object.references[i],
                    .type = types[object.module.functions[i]],
                    .reference = base_offset + descriptors + i * sizeof(wasm::FunctionDescriptor)};
    if (::mprotect(entries, mapped - descriptors, PROT_READ) != 0) return fail_errno("protect descriptors");
  }

  loaded->object_ = std::move(object);
  loaded->object_.code = {};
  loaded->object_.rodata = {};
  for (uint32_t i = 0; i < loaded->object_.functions.size(); ++i)
    loaded->starts_.push_back({loaded->object_.functions[i], static_cast<int32_t>(i)});
  for (uint32_t start : loaded->object_.trampolines) loaded->starts_.push_back({start, -1});
  if (loaded->object_.cross_instance)
    for (uint32_t start : loaded->object_.references) loaded->starts_.push_back({start, -1});
  std::sort(loaded->starts_.begin(), loaded->starts_.end());
  auto perf_map = state_->perf_map.lock();
  if (perf_map->valid()) TRY(write_all(perf_map->get(), as_bytes(perf_lines(*loaded))));
  return loaded;
}

// "ADDRESS SIZE NAME", hexadecimal, a line for each function.
std::string CodeArena::perf_lines(const LoadedObject& object) {
  std::string lines;
  for (size_t i = 0; i < object.starts_.size(); ++i) {
    const auto [start, function] = object.starts_[i];
    const uint64_t end = i + 1 < object.starts_.size() ? object.starts_[i + 1].first : object.descriptors_offset_;
    const std::string name =
        function < 0 ? "trampoline" : object.module().function_name(static_cast<uint32_t>(function));
    lines += fmt::format("{:x} {:x} {}\n", object.base_ + start, end - start, name);
  }
  return lines;
}

Result<void> CodeArena::write_perf_map(const std::filesystem::path& path) {
  UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600));
  if (!file.valid()) return fail_errno("create " + path.string());
  *state_->perf_map.lock() = std::move(file);
  return {};
}

void CodeArena::unload(LoadedObject& object) {
  auto index = state_->index.lock();
  CHECK(::mmap(reinterpret_cast<void*>(object.base_), object.mapped_bytes_, PROT_NONE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED,
        errno);
  index->by_base.erase(object.base_);
  index->used_bytes -= object.mapped_bytes_;
}

uint64_t CodeArena::used_bytes() const { return state_->index.lock()->used_bytes; }
size_t CodeArena::objects() const { return state_->index.lock()->by_base.size(); }

const LoadedObject* CodeArena::find(uint64_t address) const {
  auto index = state_->index.lock();
  auto after = index->by_base.upper_bound(address);
  if (after == index->by_base.begin()) return nullptr;
  const LoadedObject* object = std::prev(after)->second;
  return address < object->base_ + object->mapped_bytes_ ? object : nullptr;
}

LoadedObject::~LoadedObject() {
  if (arena_) arena_->unload(*this);
}

uint64_t LoadedObject::enter_return_address() const {
  return base_ + static_cast<uint64_t>(wasm::Stub::kEnterReturn) * wasm::kStubBytes;
}

uint64_t LoadedObject::reference(uint32_t function) const {
  return base_ - wasm::kArenaBase + descriptors_offset_ + uint64_t{function} * sizeof(wasm::FunctionDescriptor);
}

uint32_t LoadedObject::function_of(uint64_t of) const {
  if (of == 0) return 0;
  const uint64_t index = (of - reference(0)) / sizeof(wasm::FunctionDescriptor);
  CHECK(of >= reference(0) && index < object_.functions.size(), of);
  return static_cast<uint32_t>(index + 1);
}

std::vector<Frame> LoadedObject::walk(uint64_t pc, uint64_t sp, uint64_t stack_top) const {
  std::vector<Frame> frames;
  bool is_return_address = false;  // then the call is the instruction before it
  while (frames.size() < kFramesMax) {
    if (pc < base_ + wasm::kStubPageBytes || pc >= base_ + descriptors_offset_) break;
    const auto at = static_cast<uint32_t>(pc - base_ - (is_return_address ? 1 : 0));
    const auto after = std::upper_bound(starts_.begin(), starts_.end(), std::pair{at, INT32_MAX});
    if (after == starts_.begin()) break;
    const auto [start, function] = *std::prev(after);
    if (function < 0) break;  // a trampoline: the host called from here
    frames.push_back(
        {static_cast<uint32_t>(function), module().function_name(static_cast<uint32_t>(function)), at - start});
    auto row = std::upper_bound(object_.unwind.begin(), object_.unwind.end(), at,
                                [](uint32_t value, const wasm::UnwindRow& r) { return value < r.begin; });
    if (row == object_.unwind.begin()) break;
    const uint32_t cfa_bytes = std::prev(row)->cfa_bytes;
    if (cfa_bytes < 8 || sp > stack_top || cfa_bytes > stack_top - sp) break;
    sp += cfa_bytes;
    std::memcpy(&pc, reinterpret_cast<const void*>(sp - 8), sizeof(pc));
    is_return_address = true;
  }
  return frames;
}

const LoadedObject* object_at(uint64_t address) {
  const CodeArena* arena = g_arena.load();
  return arena ? arena->find(address) : nullptr;
}

const wasm::FunctionDescriptor& descriptor_of(uint64_t reference) {
  CHECK(reference != 0 && reference < wasm::kArenaBytes, reference);
  return *reinterpret_cast<const wasm::FunctionDescriptor*>(wasm::kArenaBase + reference);
}

}  // namespace spore::faaslet
