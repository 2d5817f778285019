// One durable call as it is kept: what was asked, where it stands, how its last attempt ended; and the keys under which
// calls lie in their database. Plain values. Times are milliseconds of the wall clock, as they outlive the machine's
// boot.
//
//   queued --begin--> running --ok--> succeeded
//     ^                  |--failed, attempts left--> retrying --begin--> running
//     |                  `--failed, none left--> failed (a dead letter, unless its client waited for it)
//     `------------------------------replay------'             any of the first three --cancel--> cancelled
//
//   'c' id                      CallRecord
//   'i' 'r' 'g' id              bytes: input, output, log; larger inputs and outputs are objects (CallStore)
//   'q' id                      empty: the call has not ended
//   'l' tenant created id       empty: the calls of a tenant, newest first
//   'd' tenant created id       empty: of those, dead letters
//   'e' expires id              empty: calls that have ended, by when they are dropped
//   'k' tenant name 0 key       id: the call that this idempotency key stands for
//   'v'                         text: the version of this format
//
// Tenants are their 16 bytes (state/value_id.h), `expires` is big endian, `created` the complement of that.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/digest.h"
#include "functions/function.h"
#include "state/rocksdb_records.h"
#include "worker/call.h"

namespace spore::calls {

using worker::CallId;

inline constexpr std::string_view kFormatVersion = "spore calls 2";
constexpr size_t kKeyBytesMax = 255;    // of an idempotency key
constexpr uint32_t kAttemptsMax = 100;  // that a caller may ask for
constexpr uint32_t kLostMax = 10;       // attempts whose host died under them, before the call counts as failed

using worker::CallIdHash;
// 32 hexadecimal digits, lower or upper case.
std::optional<CallId> parse_call_id(std::string_view text);

enum class CallState : uint8_t { kQueued, kRunning, kRetrying, kSucceeded, kFailed, kCancelled };
std::string_view to_string(CallState state);

struct CallRecord {
  CallId id;
  functions::FunctionId function;
  uint64_t version = 0;  // 0: whichever is current when an attempt begins
  uint32_t attempts_max = 1;
  uint64_t timeout_ms = 0;  // shortens the function's; 0: does not
  worker::Priority priority = worker::Priority::kNormal;
  bool client_waits = false;  // it is told of a failure itself
  std::string key;            // of idempotency; "": none
  Digest asked{};             // of what was asked with the key
  int64_t key_until_ms = 0;   // it stands for this call until then, and until the call has ended
  int64_t created_ms = 0;

  CallState state = CallState::kQueued;
  uint32_t attempt = 0;   // number of the last one; whatever ends it must name it
  uint32_t failures = 0;  // attempts that failed, since the last replay
  uint32_t lost = 0;      // attempts without an end: their hosts died, or could not store it
  bool dead = false;      // a dead letter
  uint64_t runner = 0;    // who runs it: a process of its own number
  int64_t lease_until_ms = 0;
  int64_t started_ms = 0;  // the last attempt
  int64_t due_ms = 0;      // kRetrying: the next attempt
  int64_t ended_ms = 0;
  int64_t expires_ms = 0;  // of a call that has ended

  uint64_t input_bytes = 0;
  bool input_is_object = false;
  bool has_output = false;
  uint64_t output_bytes = 0;
  uint32_t output_object = 0;  // the attempt that the object is of; 0: it is no object
  uint64_t log_bytes = 0;
  uint64_t ran_version = 0;  // in the last attempt that ended, as what follows
  // How that ended, without output and log.
  worker::CallResult result;
  uint64_t output_bytes_allowed = 0;

  bool ended() const { return state >= CallState::kSucceeded; }
  // What it takes of what a tenant may store.
  uint64_t stored_bytes() const;

  Bytes write() const;
  static std::optional<CallRecord> parse(ByteSpan bytes);
};

// ---- keys -----------------------------------------------------------------------------------------------------------

using state::rocksdb_records::KeyRange;

std::string record_key(const CallId& id);
std::string input_key(const CallId& id);
std::string output_key(const CallId& id);
std::string log_key(const CallId& id);
std::string live_key(const CallId& id);
std::string list_key(char kind, const CallRecord& record);  // 'l' or 'd'
std::string expiry_key(const CallRecord& record);
std::string idempotency_key(const functions::FunctionId& function, std::string_view key);
// Of a key that ends with one.
CallId id_at_end(std::string_view key);
KeyRange all_live();
KeyRange all_records();
KeyRange expired_before(int64_t now_ms);
// The list of a tenant, or of all where that is empty.
KeyRange list_of(char kind, std::string_view tenant);

}  // namespace spore::calls
