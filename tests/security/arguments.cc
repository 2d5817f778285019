#include "arguments.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include "base/check.h"

namespace spore::security {

namespace {

constexpr uint32_t kPlaceBytes = 0x400;     // for each pointee
constexpr uint32_t kBuffersPlace = 0x3000;  // where what lists of buffers name lies

template <class... T>
Bytes bytes_of(T... values) {
  Bytes out;
  const auto add = [&](const auto& value) {
    const auto* first = reinterpret_cast<const uint8_t*>(&value);
    out.insert(out.end(), first, first + sizeof(value));
  };
  (add(values), ...);
  return out;
}

Argument number(uint64_t value) { return {.value = value}; }
Argument pointer(Bytes pointee) { return {.role = Role::kPointer, .pointee = std::move(pointee)}; }
Argument zeros(size_t bytes) { return pointer(Bytes(bytes)); }
Argument text(std::string_view said) { return pointer(Bytes(said.begin(), said.end())); }
Argument text_with_nul(std::string_view said) {
  Argument out = text(said);
  out.pointee.push_back(0);
  return out;
}
// As AssemblyScript has it: the size in bytes in front, then UTF-16.
Argument utf16(std::string_view said) {
  Argument out = pointer(bytes_of(static_cast<uint32_t>(2 * said.size())));
  for (const char c : said) out.pointee.insert(out.pointee.end(), {static_cast<uint8_t>(c), 0});
  out.lead = 4;
  return out;
}
// Two buffers.
Argument buffers() {
  Argument out = pointer(bytes_of(kBuffersPlace, uint32_t{8}, kBuffersPlace + 0x100, uint32_t{24}));
  out.addresses = {0, 8};
  return out;
}
Argument address_of_nobody() {  // 127.0.0.1, a port that nothing listens at
  Argument out = zeros(28);
  out.pointee[0] = 1;
  out.pointee[2] = 9;
  out.pointee[12] = 127;
  out.pointee[15] = 1;
  return out;
}
// Of a clock, monotonic, due at once.
Argument subscription() {
  Argument out = zeros(48);
  out.pointee[16] = 1;
  return out;
}

// The two names that say how long what another parameter points to is.
constexpr uint64_t kAsLongAsPointee = UINT64_MAX;

// By "module.function.parameter", then "module.parameter", then "parameter". `spore` state functions and `env` share
// names that mean different things: keys end with a NUL for Faasm, and have a length for Spore.
const std::map<std::string, Argument, std::less<>>& dictionary() {
  static const std::map<std::string, Argument, std::less<>> kDictionary = {
      // Bytes and texts.
      {"pointer", zeros(16)},
      {"buf", zeros(16)},
      {"size", number(kAsLongAsPointee)},
      {"length", number(kAsLongAsPointee)},
      {"name", text("echo")},
      {"spore.sock_resolve.name", text("127.0.0.1")},
      {"env.name", text_with_nul("echo")},
      {"input", text("hello")},
      {"key", text("value")},
      {"env.key", text_with_nul("value")},
      {"prefix", text("v")},
      {"after", text("a")},
      {"path", text("file")},
      {"old_path", text("file")},
      {"new_path", text("new")},
      {"target", text("file")},
      {"message", utf16("what")},
      {"file", utf16("where")},
      {"text", utf16("line")},
      // Lists and structures.
      {"iovs", buffers()},
      {"spore.call_await_any.pointer", pointer(bytes_of(uint32_t{1}))},
      {"spore.call_detached.pointer", zeros(32)},
      {"spore.state_list.pointer", zeros(600)},
      {"version", zeros(16)},
      {"address", address_of_nobody()},
      {"addresses", zeros(4 * 28)},
      {"subscriptions", subscription()},
      {"events", zeros(32)},
      {"argv", zeros(8)},
      {"argv_buf", zeros(11)},  // "attack", "one", as the prober is called
      {"environ", zeros(4)},
      {"environ_buf", zeros(4)},  // "A=B"
      {"wasi_snapshot_preview1.fd_readdir.buf", zeros(256)},
      {"env.__faasm_await_call_output.output", zeros(4)},
      {"env.__faasm_await_call_output.size", zeros(4)},
      {"env.__faasm_read_state.pointer", zeros(64)},
      {"env.__faasm_write_state.pointer", zeros(64)},
      {"wasi_snapshot_preview1.fd_prestat_dir_name.path", zeros(1)},
      {"wasi_snapshot_preview1.path_readlink.path", text("link")},
      {"wasi_snapshot_preview1.path_create_directory.path", text("made")},
      {"wasi_snapshot_preview1.path_remove_directory.path", text("directory")},
      {"wasi_snapshot_preview1.path_symlink.path", text("another")},
      // What WASI functions write, behind "->".
      {"->bytes", zeros(4)},
      {"->count", zeros(4)},
      {"->flags", zeros(2)},
      {"->fd", zeros(4)},
      {"->position", zeros(8)},
      {"->nanoseconds", zeros(8)},
      {"->fdstat", zeros(24)},
      {"->filestat", zeros(64)},
      {"->prestat", zeros(8)},
      // Numbers.
      {"offset", number(0)},
      {"index", number(0)},
      {"handle", number(1)},
      {"id", number(1)},
      {"ms", number(200)},
      {"timeout_ms", number(200)},
      {"count", number(2)},
      {"spore.count", number(1)},
      {"spore.sock_resolve.count", number(4)},
      {"wasi_snapshot_preview1.poll_oneoff.count", number(1)},
      {"env.__faasm_read_appended_state.count", number(1)},
      {"spore.state_map.size", number(64)},
      {"spore.state_resize.size", number(32)},
      {"spore.state_push.size", number(0)},
      {"spore.state_pull.size", number(0)},
      {"wasi_snapshot_preview1.fd_filestat_set_size.size", number(10)},
      {"wasi_snapshot_preview1.fd_advise.length", number(8)},
      {"wasi_snapshot_preview1.fd_allocate.length", number(8)},
      {"env.__faasm_read_state_offset_ptr.size", number(16)},
      {"env.__faasm_flag_state_offset_dirty.size", number(16)},
      {"total", number(64)},
      {"flags", number(0)},
      {"spore.state_lock.flags", number(1)},
      {"spore.sock_sendto.flags", number(4)},
      {"wasi_snapshot_preview1.fd_filestat_set_times.flags", number(8)},
      {"wasi_snapshot_preview1.path_filestat_set_times.flags", number(8)},
      {"op", number(1)},
      {"element", number(1)},
      {"fd", number(4)},  // a file, or a socket; 3 is a directory
      {"wasi_snapshot_preview1.fd_readdir.fd", number(3)},
      {"wasi_snapshot_preview1.fd_prestat_get.fd", number(3)},
      {"wasi_snapshot_preview1.fd_prestat_dir_name.fd", number(3)},
      {"directory", number(3)},
      {"old_fd", number(3)},
      {"new_fd", number(3)},
      {"from", number(4)},
      {"to", number(3)},
      {"family", number(1)},
      {"type", number(5)},
      {"backlog", number(4)},
      {"option", number(5)},
      {"value", number(65536)},
      {"how", number(3)},
      {"clock", number(1)},
      {"precision", number(0)},
      {"advice", number(0)},
      {"base", number(2)},
      {"inheriting", number(0)},
      {"cookie", number(0)},
      {"whence", number(0)},
      {"lookup", number(1)},
      {"wasi_snapshot_preview1.path_link.lookup", number(0)},
      {"oflags", number(0)},
      {"rights", number(2 | 64)},
      {"fdflags", number(0)},
      {"atim", number(0)},
      {"mtim", number(0)},
      {"code", number(0)},
      {"signal", number(0)},
      {"line", number(1)},
      {"column", number(1)},
  };
  return kDictionary;
}

// The names in the first parentheses of `said`, which go behind it.
std::vector<std::string> take_names(std::string_view& said) {
  const size_t begin = said.find('('), end = said.find(')');
  std::vector<std::string> names;
  if (begin == std::string_view::npos || end == std::string_view::npos) return names;
  std::string name;
  for (const char c : said.substr(begin + 1, end - begin - 1)) {
    if (c == ',') {
      names.push_back(std::exchange(name, {}));
    } else if (c != ' ' || !name.empty()) {
      name += c;
    }
  }
  names.push_back(name);
  said.remove_prefix(end + 1);
  return names;
}

// "(a, b) -> (c): ...", "-> (c) ...", "Faasm: (a): ..."; what is behind the arrow has one in front.
std::vector<std::string> names_of_parameters(const host::ImportDeclaration& declaration) {
  if (declaration.signature.params.empty()) return {};
  std::string_view said = declaration.documentation;
  if (said == "AssemblyScript: the same." || said == "Faasm: (key): the same.") {
    // As the one above it in the table.
    const auto all = host::imports();
    for (size_t i = 1; i < all.size(); ++i)
      if (&all[i] == &declaration) return names_of_parameters(all[i - 1]);
  }
  for (const std::string_view whose : {"AssemblyScript: ", "Faasm: "})
    if (said.starts_with(whose)) said.remove_prefix(whose.size());
  std::vector<std::string> names;
  if (said.starts_with("(")) names = take_names(said);
  if (said.starts_with(" -> (") || said.starts_with("-> (")) {
    for (const std::string& name : take_names(said)) names.push_back("->" + name);
  }
  if (!names.empty() && names.back() == "five numbers") {
    names.pop_back();
    for (int i = 0; i < 5; ++i) names.push_back("number");
  }
  return names;
}

const Argument* look_up(const host::ImportDeclaration& declaration, const std::string& name) {
  const std::string module(declaration.module);
  for (const std::string& key : {full_name(declaration) + "." + name, module + "." + name, name}) {
    const auto found = dictionary().find(key);
    if (found != dictionary().end()) return &found->second;
  }
  return nullptr;
}

}  // namespace

std::string full_name(const host::ImportDeclaration& declaration) {
  return std::string(declaration.module) + "." + std::string(declaration.name);
}

Result<std::vector<Argument>> good_arguments(const host::ImportDeclaration& declaration) {
  const auto names = names_of_parameters(declaration);
  const auto& types = declaration.signature.params;
  if (names.size() != types.size())
    return fail(ErrorCode::kInvalidArgument, full_name(declaration) + " has " + std::to_string(types.size()) +
                                                 " parameters, and its documentation (" +
                                                 std::string(declaration.documentation) + ") names " +
                                                 std::to_string(names.size()));
  std::vector<Argument> out;
  uint32_t place = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    Argument argument;
    if (types[i] != wasm::ValueType::kF64 && types[i] != wasm::ValueType::kF32) {
      // The directory that a path begins at is called as any descriptor.
      const bool directory = names[i] == "fd" && declaration.name.starts_with("path_");
      const Argument* known = look_up(declaration, directory ? "directory" : names[i]);
      if (!known)
        return fail(ErrorCode::kInvalidArgument, full_name(declaration) + ": what is its parameter \"" + names[i] +
                                                     "\"? tests/security/arguments.cc");
      argument = *known;
    }
    if (argument.role == Role::kNumber && argument.value == kAsLongAsPointee) {
      const auto before =
          std::find_if(out.rbegin(), out.rend(), [](const Argument& a) { return a.role == Role::kPointer; });
      if (before == out.rend())
        return fail(ErrorCode::kInvalidArgument, full_name(declaration) + ": \"" + names[i] + "\" of what?");
      argument.value = before->extent();
    }
    argument.name = names[i];
    if (argument.role == Role::kPointer) {
      if (types[i] != wasm::ValueType::kI32)
        return fail(ErrorCode::kInvalidArgument, full_name(declaration) + ": \"" + names[i] + "\" is no address");
      CHECK(argument.pointee.size() <= kPlaceBytes && place + kPlaceBytes <= kBuffersPlace, argument.name);
      argument.place = place;
      place += kPlaceBytes;
    }
    out.push_back(std::move(argument));
  }
  return out;
}

}  // namespace spore::security
