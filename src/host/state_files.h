// State as files: /spore/state/KEY, for programs that know nothing of Spore.
//
//   /spore/state/          a directory without subdirectories: one name for each value of the tenant, percent-encoded
//   /spore/state/a%20b     the value of key "a b": its replica on this host, read and written as a file
//   /spore/state/a/b       the value of key "a/b"; the directory lists it as "a%2Fb"
//
// What is behind "state/" is taken as it is written, decoded, for a key. Nothing is resolved: "..", "." and empty
// components are refused, so there is no way out. The functions of WASI (wasi_*.cc) come here with what state_path()
// recognises, and with descriptors of the kind kState. All of them wait as state_calls.cc does: parked, on an
// operation.
//
// A descriptor holds the replica. Once the value has been removed, by anybody, reading goes on with what is here, and
// changing it or publishing it is ESTALE. Errors are those of state_calls.h, but ENOSPC where the host has no room.
#pragma once

#include <expected>
#include <optional>
#include <string>

#include "host/wasi.h"

namespace spore::host::wasi {

struct StatePath {
  std::string key;
  bool slash_behind = false;
};

// The key that a path below this directory names; nothing where it is not one below /spore/state. kPerm for "..",
// kInval for a path that is no key, kNameTooLong.
std::expected<std::optional<StatePath>, Errno> state_path(const HostState& state, const Descriptor& directory,
                                                          const std::string& path);

// Opens the value, as open_flags and the rights say; `descriptor` comes with its path, flags and rights.
Status open_state_file(HostCall& call, const StatePath& path, const VirtualOpening& opening, Descriptor descriptor,
                       GuestPtr<uint32_t> opened);
Status stat_state_file(HostCall& call, const StatePath& path, GuestPtr<Filestat> stat);
Status unlink_state_file(HostCall& call, const StatePath& path);
// There are none, and none is needed: succeeds where no value has that key.
Status create_state_directory(HostCall& call, const StatePath& path);

// A descriptor of the kind kState. `at`: nothing for its own offset.
Status read_state_file(HostCall& call, Descriptor& file, const Buffers& buffers, std::optional<uint64_t> at,
                       GuestPtr<uint32_t> nread);
Status write_state_file(HostCall& call, Descriptor& file, const Buffers& buffers, std::optional<uint64_t> at,
                        GuestPtr<uint32_t> nwritten);
// Makes it that long; or only longer.
Status resize_state_file(HostCall& call, Descriptor& file, uint64_t size_bytes, bool may_shorten);
// Pushes the value.
Status sync_state_file(HostCall& call, Descriptor& file);
Filestat filestat_of_state(const Descriptor& file);

// fd_readdir of /spore/state.
Status list_state_files(HostCall& call, Descriptor& directory, Bytes8 buf, uint32_t buf_len, uint64_t cookie,
                        GuestPtr<uint32_t> used);

}  // namespace spore::host::wasi
