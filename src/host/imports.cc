#include "host/imports.h"

#include <algorithm>
#include <map>
#include <utility>

#include "host/assemblyscript.h"
#include "host/binding.h"
#include "host/chain_calls.h"
#include "host/faasm.h"
#include "host/host_state.h"
#include "host/socket_calls.h"
#include "host/spore_calls.h"
#include "host/state_calls.h"
#include "host/wasi.h"

namespace spore::host {

namespace {

template <auto kFunction>
ImportDeclaration declare(std::string_view module, std::string_view name, std::string_view documentation) {
  return {module, name, Binding<kFunction>::signature(), &Binding<kFunction>::call, documentation};
}

HostResult refuse(HostCall& call, faaslet::HostFunction function) {
  const ImportDeclaration* declaration = &*std::ranges::find(imports(), function, &ImportDeclaration::function);
  call.state<HostState>().initialiser_asked = declaration;
  return call.trap(wasm::TrapKind::kHostCall, "an initialiser may not call " + std::string(declaration->name));
}

template <auto kFunction>
HostResult refuse_in_initialiser(HostCall& call) {
  return refuse(call, &Binding<kFunction>::call);
}

// The same for an import that an initialiser cannot have as it is.
template <auto kFunction>
ImportDeclaration declare(std::string_view module, std::string_view name, InInitialiser rule,
                          std::string_view documentation) {
  auto declaration = declare<kFunction>(module, name, documentation);
  declaration.in_initialiser = rule;
  declaration.initialiser_function = &refuse_in_initialiser<kFunction>;
  return declaration;
}

// One of which an initialiser gets another form.
template <auto kFunction, auto kInInitialiser>
ImportDeclaration declare(std::string_view module, std::string_view name, std::string_view documentation) {
  auto declaration = declare<kFunction>(module, name, documentation);
  declaration.initialiser_function = &Binding<kInInitialiser>::call;
  return declaration;
}

constexpr std::string_view kSpore = "spore";
constexpr std::string_view kWasi = "wasi_snapshot_preview1";
constexpr std::string_view kEnv = "env";

// The table. Parameters are named in the documentation, in order; "->" names what a WASI function writes through the
// pointers that follow.
std::vector<ImportDeclaration> make_table() {
  using namespace wasi;
  using namespace calls;
  namespace as = assemblyscript;
  return {
      declare<&input_size>(kSpore, "input_size", InInitialiser::kNotCaptured, "The size of the call's input in bytes."),
      declare<&input_read>(kSpore, "input_read", InInitialiser::kNotCaptured,
                           "(offset, pointer, size): copies at most size bytes of the input, from offset, to pointer; "
                           "returns how many, 0 past the end."),
      declare<&output_write>(kSpore, "output_write", InInitialiser::kNotCaptured,
                             "(pointer, size): appends size bytes to the call's output; returns size."),

      // Calls of other functions: each returns what it says, or minus an error number of WASI (host/chain_calls.h).
      declare<&calls::call>(kSpore, "call", InInitialiser::kNotCaptured,
                            "(name, length, input, length): begins a call of a function of the same tenant, by name or "
                            "name@version; a handle."),
      declare<&call_self>(kSpore, "call_self", InInitialiser::kNotCaptured,
                          "(index, input, length): the same of this module, entered at that function of its table, "
                          "() -> () or () -> (i32)."),
      declare<&call_detached>(kSpore, "call_detached", InInitialiser::kNotCaptured,
                              "(name, length, input, length, pointer): a durable call that outlives this one; its id "
                              "as 32 characters."),
      declare<&call_await>(
          kSpore, "call_await", InInitialiser::kNotCaptured,
          "(handle, ms): waits for its end; 0, or its exit code. 2^32-1 ms: as long as this call may."),
      declare<&call_await_any>(kSpore, "call_await_any", InInitialiser::kNotCaptured,
                               "(pointer, count, ms): waits until one of these handles has ended; its position."),
      declare<&call_output_size>(kSpore, "call_output_size", InInitialiser::kNotCaptured,
                                 "(handle): the size of its output in bytes."),
      declare<&call_output_read>(
          kSpore, "call_output_read", InInitialiser::kNotCaptured,
          "(handle, offset, pointer, size): copies at most size bytes of its output from offset; "
          "how many, 0 at the end."),
      declare<&call_message>(kSpore, "call_message", InInitialiser::kNotCaptured,
                             "(handle, pointer, size): copies what went wrong, as text; how many bytes, 0: nothing."),
      declare<&call_cancel>(kSpore, "call_cancel", InInitialiser::kNotCaptured,
                            "(handle): cancels it, with all that it has called."),
      declare<&call_close>(kSpore, "call_close", InInitialiser::kNotCaptured,
                           "(handle): gives back its output and the handle; cancels it where it has not ended."),

      // State: each returns what it says, or minus an error number of WASI (host/state_calls.h).
      declare<&state_map>(kSpore, "state_map", InInitialiser::kNotCaptured,
                          "(key, length, size, flags): the value in memory; its address. Makes one of size zeros where "
                          "there is none; size 0: as it is. Flag 1: read-only."),
      declare<&state_unmap>(kSpore, "state_unmap", InInitialiser::kNotCaptured,
                            "(key, length): takes the value out of memory."),
      declare<&state_read>(
          kSpore, "state_read", InInitialiser::kNotCaptured,
          "(key, length, offset, pointer, size): copies at most size bytes from offset; how many, 0 at the end."),
      declare<&state_write>(kSpore, "state_write", InInitialiser::kNotCaptured,
                            "(key, length, offset, pointer, size): copies size bytes into the value."),
      declare<&state_append>(
          kSpore, "state_append", InInitialiser::kNotCaptured,
          "(key, length, pointer, size): puts size bytes behind the value, in the global tier at once; their offset."),
      declare<&state_size>(kSpore, "state_size", InInitialiser::kNotCaptured,
                           "(key, length): the size of the value in bytes."),
      declare<&state_resize>(kSpore, "state_resize", InInitialiser::kNotCaptured,
                             "(key, length, size): makes it longer by zeros, or shorter."),
      declare<&state_delete>(kSpore, "state_delete", InInitialiser::kNotCaptured, "(key, length): removes the value."),
      declare<&state_list>(kSpore, "state_list", InInitialiser::kNotCaptured,
                           "(prefix, length, after, length, pointer, size): keys that begin with prefix and come after "
                           "`after`, each with a NUL; their bytes in all, 0 at the end. size is at least 513."),
      declare<&state_push>(
          kSpore, "state_push", InInitialiser::kNotCaptured,
          "(key, length, offset, size): publishes what changed in the pages of that range; size 0: to the end."),
      declare<&state_push_if>(
          kSpore, "state_push_if", InInitialiser::kNotCaptured,
          "(key, length, version): publishes if the global tier has that version (two i64), else EAGAIN."),
      declare<&state_pull>(kSpore, "state_pull", InInitialiser::kNotCaptured,
                           "(key, length, offset, size): takes over the newest version; fetches that range of it."),
      declare<&state_merge>(kSpore, "state_merge", InInitialiser::kNotCaptured,
                            "(key, length, op, element): pushes merge from now on: 0 overwrite, 1 sum, 2 min, 3 max of "
                            "0 i32, 1 i64, 2 f32, 3 f64."),
      declare<&state_lock>(
          kSpore, "state_lock", InInitialiser::kNotCaptured,
          "(key, length, flags, timeout_ms): waits for the lock; flag 1: for writing, 2: among all hosts. 1 "
          "where its last holder died with it."),
      declare<&state_unlock>(kSpore, "state_unlock", InInitialiser::kNotCaptured,
                             "(key, length, flags): gives it back; flag 2 as it was taken."),
      declare<&state_version>(kSpore, "state_version", InInitialiser::kNotCaptured,
                              "(key, length, version): writes the version that is here, two i64."),

      // Sockets: each returns what it says, or minus an error number of WASI (host/socket_calls.h).
      declare<&sock_open>(kSpore, "sock_open", InInitialiser::kNotCaptured,
                          "(family, type): a socket, of IPv4 (1) or IPv6 (2), for datagrams (5) or a stream (6); a "
                          "descriptor."),
      declare<&sock_connect>(kSpore, "sock_connect", InInitialiser::kNotCaptured,
                             "(fd, address): connects it; an address is 28 bytes."),
      declare<&sock_bind>(kSpore, "sock_bind", InInitialiser::kNotCaptured, "(fd, address): gives it that address."),
      declare<&sock_listen>(kSpore, "sock_listen", InInitialiser::kNotCaptured,
                            "(fd, backlog): lets others connect; at most 128 of them wait."),
      declare<&calls::sock_accept>(kSpore, "sock_accept", InInitialiser::kNotCaptured,
                                   "(fd, address): takes a connection, and writes whose it is; a descriptor."),
      declare<&sock_sendto>(kSpore, "sock_sendto", InInitialiser::kNotCaptured,
                            "(fd, pointer, size, flags, address): sends, to the address or, where that is 0, to the "
                            "peer; how many bytes. Flag 4: does not wait."),
      declare<&sock_recvfrom>(kSpore, "sock_recvfrom", InInitialiser::kNotCaptured,
                              "(fd, pointer, size, flags, address): receives, and writes from where unless the address "
                              "is 0; how many bytes. Flag 1: leaves it there, 2: waits for all, 4: does not wait."),
      declare<&sock_getsockname>(kSpore, "sock_getsockname", InInitialiser::kNotCaptured,
                                 "(fd, address): writes its own address."),
      declare<&sock_getpeername>(kSpore, "sock_getpeername", InInitialiser::kNotCaptured,
                                 "(fd, address): writes its peer's address."),
      declare<&sock_getsockopt>(kSpore, "sock_getsockopt", InInitialiser::kNotCaptured,
                                "(fd, option): its value: 1 type, 2 error, 3 reuse address, 4 keep alive, 5 receive "
                                "buffer, 6 send buffer, 7 receive timeout, 8 send timeout (microseconds), 9 no delay, "
                                "10 IPv6 only."),
      declare<&sock_setsockopt>(kSpore, "sock_setsockopt", InInitialiser::kNotCaptured,
                                "(fd, option, value): sets one from 3 on."),
      declare<&sock_resolve>(kSpore, "sock_resolve", InInitialiser::kNotCaptured,
                             "(name, length, family, addresses, count, ms): looks a name up and writes at most count "
                             "(64) addresses, of that family or, 0, of both; how many."),

      declare<&args_get>(kWasi, "args_get", "(argv, argv_buf): the arguments; sizes by args_sizes_get."),
      declare<&args_sizes_get>(kWasi, "args_sizes_get", "-> (count, bytes) of the arguments."),
      declare<&environ_get>(kWasi, "environ_get", "(environ, environ_buf): NAME=value strings of the environment."),
      declare<&environ_sizes_get>(kWasi, "environ_sizes_get", "-> (count, bytes) of the environment."),
      declare<&clock_res_get>(kWasi, "clock_res_get", "(clock) -> (nanoseconds): the clock's resolution."),
      declare<&clock_time_get, &still_clock_time_get>(
          kWasi, "clock_time_get",
          "(clock, precision) -> (nanoseconds): 0 realtime, 1 monotonic, 2 and 3 the CPU time of "
          "this call."),
      declare<&fd_advise>(kWasi, "fd_advise", "(fd, offset, length, advice): how the file will be used."),
      declare<&fd_allocate>(kWasi, "fd_allocate", "(fd, offset, length): reserves space for the file."),
      declare<&fd_close>(kWasi, "fd_close", InInitialiser::kNotCaptured, "(fd): closes it."),
      declare<&fd_datasync>(kWasi, "fd_datasync", "(fd): writes the file's data to storage."),
      declare<&fd_fdstat_get>(kWasi, "fd_fdstat_get", "(fd) -> (fdstat): type, flags and rights."),
      declare<&fd_fdstat_set_flags>(kWasi, "fd_fdstat_set_flags", InInitialiser::kNotCaptured,
                                    "(fd, flags): append and nonblock can be changed."),
      declare<&fd_fdstat_set_rights>(kWasi, "fd_fdstat_set_rights", InInitialiser::kNotCaptured,
                                     "(fd, base, inheriting): gives up rights."),
      declare<&fd_filestat_get>(kWasi, "fd_filestat_get", "(fd) -> (filestat): size, times, type."),
      declare<&fd_filestat_set_size>(kWasi, "fd_filestat_set_size", "(fd, size): cuts or extends the file."),
      declare<&fd_filestat_set_times>(kWasi, "fd_filestat_set_times", "(fd, atim, mtim, flags): sets its times."),
      declare<&fd_pread>(kWasi, "fd_pread", InInitialiser::kNotCaptured,
                         "(fd, iovs, count, offset) -> (bytes): reads without moving the position."),
      declare<&fd_prestat_get>(kWasi, "fd_prestat_get", "(fd) -> (prestat): of a preopened directory."),
      declare<&fd_prestat_dir_name>(kWasi, "fd_prestat_dir_name", "(fd, path, length): a preopened directory's name."),
      declare<&fd_pwrite>(kWasi, "fd_pwrite",
                          "(fd, iovs, count, offset) -> (bytes): writes without moving the position."),
      declare<&fd_read>(kWasi, "fd_read", InInitialiser::kNotCaptured,
                        "(fd, iovs, count) -> (bytes): reads; 0 is the end. At most 1024 buffers."),
      declare<&fd_readdir>(kWasi, "fd_readdir", InInitialiser::kRefused,
                           "(fd, buf, length, cookie) -> (bytes): entries of a directory."),
      declare<&fd_renumber>(kWasi, "fd_renumber", InInitialiser::kNotCaptured,
                            "(from, to): moves a descriptor to the number of another."),
      declare<&fd_seek>(kWasi, "fd_seek", "(fd, offset, whence) -> (position): moves the position."),
      declare<&fd_sync>(kWasi, "fd_sync", "(fd): writes the file to storage."),
      declare<&fd_tell>(kWasi, "fd_tell", "(fd) -> (position)."),
      declare<&fd_write>(kWasi, "fd_write", "(fd, iovs, count) -> (bytes): writes. At most 1024 buffers."),
      declare<&path_create_directory>(kWasi, "path_create_directory", InInitialiser::kRefused,
                                      "(fd, path, length): makes a directory."),
      declare<&path_filestat_get>(kWasi, "path_filestat_get", InInitialiser::kRefused,
                                  "(fd, lookup, path, length) -> (filestat)."),
      declare<&path_filestat_set_times>(kWasi, "path_filestat_set_times", InInitialiser::kRefused,
                                        "(fd, lookup, path, length, atim, mtim, flags): sets a file's times."),
      declare<&path_link>(kWasi, "path_link", InInitialiser::kRefused,
                          "(old_fd, lookup, old_path, length, new_fd, new_path, length): makes a hard link."),
      declare<&path_open>(kWasi, "path_open", InInitialiser::kRefused,
                          "(fd, lookup, path, length, oflags, rights, inheriting, fdflags) -> (fd): opens below fd."),
      declare<&path_readlink>(kWasi, "path_readlink", InInitialiser::kRefused,
                              "(fd, path, length, buf, length) -> (bytes): what a link says."),
      declare<&path_remove_directory>(kWasi, "path_remove_directory", InInitialiser::kRefused,
                                      "(fd, path, length): removes an empty directory."),
      declare<&path_rename>(kWasi, "path_rename", InInitialiser::kRefused,
                            "(old_fd, old_path, length, new_fd, new_path, length)."),
      declare<&path_symlink>(kWasi, "path_symlink", InInitialiser::kRefused,
                             "(target, length, fd, path, length): makes a symbolic link to a relative path."),
      declare<&path_unlink_file>(kWasi, "path_unlink_file", InInitialiser::kRefused,
                                 "(fd, path, length): removes a name of a file."),
      declare<&poll_oneoff>(
          kWasi, "poll_oneoff",
          "(subscriptions, events, count) -> (count): waits for clocks and descriptors. At most 4096."),
      declare<&proc_exit>(kWasi, "proc_exit", "(code): ends the call with that exit code."),
      declare<&proc_raise>(kWasi, "proc_raise", "(signal): ENOSYS; a guest has no signals."),
      declare<&random_get>(kWasi, "random_get", InInitialiser::kRandom,
                           "(buf, length): random bytes of the host's kernel."),
      declare<&wasi::sched_yield>(kWasi, "sched_yield", "Lets others run."),
      declare<&wasi::sock_accept>(kWasi, "sock_accept",
                                  "(fd, flags) -> (fd): takes a connection of a socket of sock_open that listens."),
      declare<&sock_recv>(kWasi, "sock_recv",
                          "(fd, iovs, count, flags) -> (bytes, flags): receives. Flag 1: leaves it there, 2: waits "
                          "until all is full; 1 of the result: cut off."),
      declare<&sock_send>(kWasi, "sock_send", "(fd, iovs, count, flags) -> (bytes): sends; there are no flags."),
      declare<&sock_shutdown>(kWasi, "sock_shutdown", "(fd, how): 1: receives no more, 2: sends no more, 3: both."),

      declare<&as::abort>(kEnv, "abort", "AssemblyScript: (message, file, line, column): ends the call with a trap."),
      declare<&as::trace>(kEnv, "trace", "AssemblyScript: (message, count, five numbers): a line to the log."),
      declare<&as::console_out>(kEnv, "console.log", InInitialiser::kNotCaptured,
                                "AssemblyScript: (text): a line to the standard output."),
      declare<&as::console_out>(kEnv, "console.info", InInitialiser::kNotCaptured, "AssemblyScript: the same."),
      declare<&as::console_out>(kEnv, "console.debug", InInitialiser::kNotCaptured, "AssemblyScript: the same."),
      declare<&as::console_error>(kEnv, "console.warn", "AssemblyScript: (text): a line to the log."),
      declare<&as::console_error>(kEnv, "console.error", "AssemblyScript: the same."),
      declare<&as::seed>(kEnv, "seed", InInitialiser::kRandom, "AssemblyScript: the seed of Math.random."),
      declare<&as::date_now, &as::still_date_now>(kEnv, "Date.now", "AssemblyScript: milliseconds since 1970."),

      // Faasm's names (host/faasm.h).
      declare<&faasm::read_input>(kEnv, "__faasm_read_input", InInitialiser::kNotCaptured,
                                  "Faasm: (pointer, size): copies the input; how many bytes. size 0: its size."),
      declare<&faasm::write_output>(kEnv, "__faasm_write_output", InInitialiser::kNotCaptured,
                                    "Faasm: (pointer, size): the output, in place of all before."),
      declare<&faasm::chain_name>(kEnv, "__faasm_chain_name", InInitialiser::kNotCaptured,
                                  "Faasm: (name, input, size): spore.call; its id."),
      declare<&faasm::chain_ptr>(kEnv, "__faasm_chain_ptr", InInitialiser::kNotCaptured,
                                 "Faasm: (index, input, size): spore.call_self; its id."),
      declare<&faasm::await_call>(kEnv, "__faasm_await_call", InInitialiser::kNotCaptured,
                                  "Faasm: (id): waits for its end; its exit code, 1 where it failed otherwise."),
      declare<&faasm::await_call_output>(
          kEnv, "__faasm_await_call_output", InInitialiser::kNotCaptured,
          "Faasm: (id, output, size): the same; writes address and size of the output, in memory of malloc()."),
      declare<&faasm::read_state>(kEnv, "__faasm_read_state", InInitialiser::kNotCaptured,
                                  "Faasm: (key, pointer, size): copies the value; its size. size 0: only that."),
      declare<&faasm::read_state_ptr>(kEnv, "__faasm_read_state_ptr", InInitialiser::kNotCaptured,
                                      "Faasm: (key, total): the value in memory; its address."),
      declare<&faasm::read_state_offset>(kEnv, "__faasm_read_state_offset", InInitialiser::kNotCaptured,
                                         "Faasm: (key, total, offset, pointer, size): copies a part of it."),
      declare<&faasm::read_state_offset_ptr>(kEnv, "__faasm_read_state_offset_ptr", InInitialiser::kNotCaptured,
                                             "Faasm: (key, total, offset, size): the address of a part of it."),
      declare<&faasm::write_state>(kEnv, "__faasm_write_state", InInitialiser::kNotCaptured,
                                   "Faasm: (key, pointer, size): makes the value these bytes."),
      declare<&faasm::write_state_offset>(kEnv, "__faasm_write_state_offset", InInitialiser::kNotCaptured,
                                          "Faasm: (key, total, offset, pointer, size): writes a part of it."),
      declare<&faasm::push_state>(kEnv, "__faasm_push_state", InInitialiser::kNotCaptured,
                                  "Faasm: (key): publishes what changed."),
      declare<&faasm::push_state_partial>(kEnv, "__faasm_push_state_partial", InInitialiser::kNotCaptured,
                                          "Faasm: (key): the same."),
      declare<&faasm::pull_state>(kEnv, "__faasm_pull_state", InInitialiser::kNotCaptured,
                                  "Faasm: (key, total): takes over the newest version."),
      declare<&faasm::append_state>(kEnv, "__faasm_append_state", InInitialiser::kNotCaptured,
                                    "Faasm: (key, pointer, size): appends an element to the list beside the value."),
      declare<&faasm::read_appended_state>(kEnv, "__faasm_read_appended_state", InInitialiser::kNotCaptured,
                                           "Faasm: (key, pointer, size, count): copies the first elements of it."),
      declare<&faasm::clear_appended_state>(kEnv, "__faasm_clear_appended_state", InInitialiser::kNotCaptured,
                                            "Faasm: (key): removes them."),
      declare<&faasm::flag_state_dirty>(kEnv, "__faasm_flag_state_dirty", InInitialiser::kNotCaptured,
                                        "Faasm: (key, total): nothing; what is written is known."),
      declare<&faasm::flag_state_offset_dirty>(kEnv, "__faasm_flag_state_offset_dirty", InInitialiser::kNotCaptured,
                                               "Faasm: (key, total, offset, size): the same."),
      declare<&faasm::lock_state_read>(kEnv, "__faasm_lock_state_read", InInitialiser::kNotCaptured,
                                       "Faasm: (key): waits for the lock, with others that read, on this host."),
      declare<&faasm::unlock_state_read>(kEnv, "__faasm_unlock_state_read", InInitialiser::kNotCaptured,
                                         "Faasm: (key): gives it back."),
      declare<&faasm::lock_state_write>(kEnv, "__faasm_lock_state_write", InInitialiser::kNotCaptured,
                                        "Faasm: (key): waits for the lock, alone, on this host."),
      declare<&faasm::unlock_state_write>(kEnv, "__faasm_unlock_state_write", InInitialiser::kNotCaptured,
                                          "Faasm: (key): gives it back."),
      declare<&faasm::lock_state_global>(kEnv, "__faasm_lock_state_global", InInitialiser::kNotCaptured,
                                         "Faasm: (key): waits for the lock, alone, among all hosts."),
      declare<&faasm::unlock_state_global>(kEnv, "__faasm_unlock_state_global", InInitialiser::kNotCaptured,
                                           "Faasm: (key): gives it back."),
  };
}

const std::vector<ImportDeclaration>& table() {
  static const std::vector<ImportDeclaration> kTable = make_table();
  return kTable;
}

const ImportDeclaration* find_declaration(const wasm::Import& import) {
  using Key = std::pair<std::string_view, std::string_view>;
  static const auto kIndex = [] {
    std::map<Key, const ImportDeclaration*> index;
    for (const auto& declaration : table()) index.emplace(Key(declaration.module, declaration.name), &declaration);
    return index;
  }();
  const auto found = kIndex.find(Key(import.module, import.name));
  return found == kIndex.end() ? nullptr : found->second;
}

std::string_view name_of(InInitialiser rule) {
  switch (rule) {
    case InInitialiser::kMay: return "";
    case InInitialiser::kNotCaptured: return "each call";
    case InInitialiser::kRandom: return "reseed";
    case InInitialiser::kRefused: return "refused";
  }
  return "";
}

std::string_view name_of(wasm::ExternalKind kind) {
  switch (kind) {
    case wasm::ExternalKind::kFunction: return "function";
    case wasm::ExternalKind::kTable: return "table";
    case wasm::ExternalKind::kMemory: return "memory";
    case wasm::ExternalKind::kGlobal: return "global";
    case wasm::ExternalKind::kTag: return "tag";
  }
  return "thing";
}

// Signatures in an error are cut, so that a module of a few bytes cannot ask for a message of gigabytes.
std::string short_signature(const wasm::Signature& signature) {
  constexpr size_t kParametersMax = 64;
  if (signature.params.size() + signature.results.size() <= kParametersMax) return to_string(signature);
  return "(" + std::to_string(signature.params.size()) + " parameters) -> (" +
         std::to_string(signature.results.size()) + " results)";
}

// Collects the complaints, up to a size, and counts the rest.
class Complaints {
 public:
  bool has_room() const { return text_.size() < kLinkErrorBytesMax; }
  void add(std::string_view line) {
    ++count_;
    if (!has_room()) {
      ++left_out_;
      return;
    }
    text_ += "\n  ";
    text_ += line;
  }
  bool empty() const { return count_ == 0; }
  std::string message() const {
    std::string out =
        count_ == 1 ? "1 import cannot be satisfied:" : std::to_string(count_) + " imports cannot be satisfied:";
    out += text_;
    if (left_out_ > 0) out += "\n  and " + std::to_string(left_out_) + " more";
    return out;
  }

 private:
  std::string text_;
  size_t count_ = 0;
  size_t left_out_ = 0;
};

// A name from a module, as it may stand in a message: bounded, printable.
std::string shown(const wasm::Import& import) {
  constexpr size_t kBytesMax = 256;
  std::string out;
  for (const char c : (import.module + "." + import.name).substr(0, kBytesMax)) {
    out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  return out;
}

Result<std::vector<const ImportDeclaration*>> find_declarations(const wasm::ModuleInfo& module) {
  std::vector<const ImportDeclaration*> found;
  found.reserve(module.imported_functions);
  Complaints complaints;
  for (const wasm::Import& import : module.imports) {
    if (import.kind != wasm::ExternalKind::kFunction) {
      complaints.add(shown(import) + ": a " + std::string(name_of(import.kind)) + "; only functions can be imported");
      continue;
    }
    const wasm::Signature& wanted = module.signature_of(import.index);
    const ImportDeclaration* offered = find_declaration(import);
    if (!offered) {
      complaints.add(shown(import) + " " + short_signature(wanted) + ": there is no such function");
    } else if (offered->signature != wanted) {
      complaints.add(shown(import) + " " + short_signature(wanted) + ": Spore offers it as " +
                     to_string(offered->signature));
    } else {
      found.push_back(offered);
    }
  }
  if (!complaints.empty()) return fail(ErrorCode::kInvalidModule, complaints.message());
  return found;
}

}  // namespace

std::span<const ImportDeclaration> imports() { return table(); }

Result<std::vector<faaslet::HostFunction>> link(const wasm::ModuleInfo& module) {
  ASSIGN_OR_RETURN(const auto found, find_declarations(module));
  std::vector<faaslet::HostFunction> links;
  for (const ImportDeclaration* declaration : found) links.push_back(declaration->function);
  return links;
}

Result<std::vector<faaslet::HostFunction>> link_for_initialisers(const wasm::ModuleInfo& module) {
  ASSIGN_OR_RETURN(const auto found, find_declarations(module));
  const bool reseeds = module.find_export("spore_after_restore", wasm::ExternalKind::kFunction) != nullptr;
  std::vector<faaslet::HostFunction> links;
  for (const ImportDeclaration* declaration : found) {
    const bool as_ever =
        !declaration->initialiser_function || (reseeds && declaration->in_initialiser == InInitialiser::kRandom);
    links.push_back(as_ever ? declaration->function : declaration->initialiser_function);
  }
  return links;
}

bool may_call(const wasm::ModuleInfo& module) {
  return std::ranges::find_if(module.imports, [](const wasm::Import& import) {
           const std::string_view name = import.name;
           return name.starts_with("call") || name.starts_with("__faasm_") || name.starts_with("path_");
         }) != module.imports.end();
}

std::string render_documentation() {
  std::string out =
      "# The host interface\n\n"
      "Everything a function can import. This page is written from the table in `src/host/imports.cc` by a test, "
      "which\n"
      "fails when the two differ (`SPORE_UPDATE_DOCS=1` writes it anew).\n\n"
      "A function enters at the export `_start` (a command: input on stdin, output on stdout, log on stderr) or\n"
      "`spore_call` (a reactor, after `_initialize` if there is one; an i32 it returns is the exit code).\n"
      "A pointer outside memory is EFAULT from WASI functions and a trap from the others.\n\n"
      "Initialisers (the start section, `_initialize`, `spore_init`) run once, when the function is published; see\n"
      "[snapshots](snapshots.md). There a clock stands still, and an import marked\n"
      "- *each call* makes them run in each call instead, because what it gives differs from call to call;\n"
      "- *reseed* does the same, unless the module exports `spore_after_restore`;\n"
      "- *refused* ends the publish with an error.\n";
  std::string_view module;
  for (const auto& declaration : table()) {
    if (declaration.module != module) {
      module = declaration.module;
      out += "\n## " + std::string(module) + "\n\n| name | signature | | in an initialiser |\n|---|---|---|---|\n";
    }
    out += "| `" + std::string(declaration.name) + "` | `" + to_string(declaration.signature) + "` | " +
           std::string(declaration.documentation) + " | " + std::string(name_of(declaration.in_initialiser)) + " |\n";
  }
  return out;
}

}  // namespace spore::host
