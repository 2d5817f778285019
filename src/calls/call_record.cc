#include "calls/call_record.h"

#include <algorithm>

#include "base/check.h"

namespace spore::calls {

using state::rocksdb_records::after_prefix;

namespace {

constexpr size_t kIdBytes = std::tuple_size_v<decltype(CallId::bytes)>;
constexpr uint64_t kRecordBytes = 512;  // about what a record takes, with what leads to it

void put_big_endian(std::string& out, uint64_t value) {
  for (int i = 7; i >= 0; --i) out += static_cast<char>(value >> (8 * i));
}

void put_id(std::string& out, const CallId& id) {
  out.append(reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size());
}

std::string with_id(char kind, const CallId& id) {
  std::string out(1, kind);
  put_id(out, id);
  return out;
}

std::string with_tenant(char kind, std::string_view tenant) {
  const state::TenantId id = state::tenant_id(tenant);
  std::string out(1, kind);
  out.append(reinterpret_cast<const char*>(id.data()), id.size());
  return out;
}

CallId read_id(ByteReader& in) {
  CallId id;
  for (uint8_t& byte : id.bytes) byte = in.read<uint8_t>();
  return id;
}

void write_result(ByteWriter& out, const worker::CallResult& result) {
  out.write(result.status);
  out.write(result.exit_code);
  out.write(result.trap.kind);
  out.write_text(result.trap.message);
  out.write<uint64_t>(result.trap.stack.size());
  for (const faaslet::Frame& frame : result.trap.stack) {
    out.write(frame.function_index);
    out.write_text(frame.function);
    out.write(frame.code_offset);
  }
  out.write<uint8_t>(result.log_truncated);
  out.write(result.error.code);
  out.write_text(result.error.message);
  out.write(result.start);
  for (const auto duration : {result.queued, result.starting, result.duration, result.usage.cpu})
    out.write<int64_t>(duration.count());
  out.write(result.usage.memory_bytes);
}

bool read_result(ByteReader& in, worker::CallResult& result) {
  result.status = in.read<worker::CallStatus>();
  result.exit_code = in.read<int32_t>();
  result.trap.kind = in.read<wasm::TrapKind>();
  result.trap.message = in.read_text();
  const uint64_t frames = in.read_count(4 + 8 + 4);
  for (uint64_t i = 0; i < frames; ++i) {
    faaslet::Frame frame;
    frame.function_index = in.read<uint32_t>();
    frame.function = in.read_text();
    frame.code_offset = in.read<uint32_t>();
    result.trap.stack.push_back(std::move(frame));
  }
  result.log_truncated = in.read<uint8_t>() != 0;
  result.error.code = in.read<ErrorCode>();
  result.error.message = in.read_text();
  result.start = in.read<worker::StartKind>();
  for (auto* duration : {&result.queued, &result.starting, &result.duration, &result.usage.cpu})
    *duration = std::chrono::microseconds(in.read<int64_t>());
  result.usage.memory_bytes = in.read<uint64_t>();
  return in.ok() && result.status <= worker::kCallStatusLast && result.trap.kind <= wasm::TrapKind::kHostCall &&
         result.error.code <= ErrorCode::kInternal && result.start <= worker::StartKind::kWarm;
}

}  // namespace

std::optional<CallId> parse_call_id(std::string_view text) {
  CallId id;
  if (text.size() != 2 * kIdBytes) return std::nullopt;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = static_cast<char>(text[i] | 0x20);
    const int digit = text[i] >= '0' && text[i] <= '9' ? text[i] - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return std::nullopt;
    id.bytes[i / 2] = static_cast<uint8_t>(id.bytes[i / 2] << 4 | digit);
  }
  return id;
}

std::string_view to_string(CallState state) {
  switch (state) {
    case CallState::kQueued: return "queued";
    case CallState::kRunning: return "running";
    case CallState::kRetrying: return "retrying";
    case CallState::kSucceeded: return "succeeded";
    case CallState::kFailed: return "failed";
    case CallState::kCancelled: return "cancelled";
  }
  return "unknown";
}

uint64_t CallRecord::stored_bytes() const { return kRecordBytes + input_bytes + output_bytes + log_bytes; }

Bytes CallRecord::write() const {
  ByteWriter out;
  for (const uint8_t byte : id.bytes) out.write(byte);
  out.write_text(function.tenant);
  out.write_text(function.name);
  out.write(version);
  out.write(attempts_max);
  out.write(timeout_ms);
  out.write(priority);
  out.write<uint8_t>(client_waits);
  out.write_text(key);
  for (const uint8_t byte : asked) out.write(byte);
  out.write(key_until_ms);
  out.write(created_ms);
  out.write(state);
  for (const uint32_t number : {attempt, failures, lost}) out.write(number);
  out.write<uint8_t>(dead);
  out.write(runner);
  for (const int64_t time : {lease_until_ms, started_ms, due_ms, ended_ms, expires_ms}) out.write(time);
  out.write(input_bytes);
  out.write<uint8_t>(input_is_object);
  out.write<uint8_t>(has_output);
  out.write(output_bytes);
  out.write(output_object);
  out.write(log_bytes);
  out.write(ran_version);
  write_result(out, result);
  out.write(output_bytes_allowed);
  return out.take();
}

std::optional<CallRecord> CallRecord::parse(ByteSpan bytes) {
  ByteReader in(bytes);
  CallRecord out;
  out.id = read_id(in);
  out.function.tenant = in.read_text();
  out.function.name = in.read_text();
  out.version = in.read<uint64_t>();
  out.attempts_max = in.read<uint32_t>();
  out.timeout_ms = in.read<uint64_t>();
  out.priority = in.read<worker::Priority>();
  out.client_waits = in.read<uint8_t>() != 0;
  out.key = in.read_text();
  for (uint8_t& byte : out.asked) byte = in.read<uint8_t>();
  out.key_until_ms = in.read<int64_t>();
  out.created_ms = in.read<int64_t>();
  out.state = in.read<CallState>();
  for (uint32_t* number : {&out.attempt, &out.failures, &out.lost}) *number = in.read<uint32_t>();
  out.dead = in.read<uint8_t>() != 0;
  out.runner = in.read<uint64_t>();
  for (int64_t* time : {&out.lease_until_ms, &out.started_ms, &out.due_ms, &out.ended_ms, &out.expires_ms})
    *time = in.read<int64_t>();
  out.input_bytes = in.read<uint64_t>();
  out.input_is_object = in.read<uint8_t>() != 0;
  out.has_output = in.read<uint8_t>() != 0;
  out.output_bytes = in.read<uint64_t>();
  out.output_object = in.read<uint32_t>();
  out.log_bytes = in.read<uint64_t>();
  out.ran_version = in.read<uint64_t>();
  if (!read_result(in, out.result)) return std::nullopt;
  out.result.id = out.id;
  out.output_bytes_allowed = in.read<uint64_t>();
  if (!in.ok() || !in.at_end() || out.state > CallState::kCancelled || out.priority > worker::Priority::kHigh)
    return std::nullopt;
  return out;
}

std::string record_key(const CallId& id) { return with_id('c', id); }
std::string input_key(const CallId& id) { return with_id('i', id); }
std::string output_key(const CallId& id) { return with_id('r', id); }
std::string log_key(const CallId& id) { return with_id('g', id); }
std::string live_key(const CallId& id) { return with_id('q', id); }

std::string list_key(char kind, const CallRecord& record) {
  std::string out = with_tenant(kind, record.function.tenant);
  put_big_endian(out, ~static_cast<uint64_t>(record.created_ms));
  put_id(out, record.id);
  return out;
}

std::string expiry_key(const CallRecord& record) {
  std::string out(1, 'e');
  put_big_endian(out, static_cast<uint64_t>(record.expires_ms));
  put_id(out, record.id);
  return out;
}

std::string idempotency_key(const functions::FunctionId& function, std::string_view key) {
  return with_tenant('k', function.tenant).append(function.name).append(1, '\0').append(key);
}

CallId id_at_end(std::string_view key) {
  CHECK(key.size() > kIdBytes, key.size());
  CallId id;
  std::memcpy(id.bytes.data(), key.data() + key.size() - kIdBytes, kIdBytes);
  return id;
}

KeyRange all_live() { return {.begin = "q", .end = after_prefix("q")}; }
KeyRange all_records() { return {.begin = "c", .end = after_prefix("c")}; }

KeyRange expired_before(int64_t now_ms) {
  std::string end(1, 'e');
  put_big_endian(end, static_cast<uint64_t>(now_ms) + 1);
  return {.begin = "e", .end = std::move(end)};
}

KeyRange list_of(char kind, std::string_view tenant) {
  const std::string prefix = tenant.empty() ? std::string(1, kind) : with_tenant(kind, tenant);
  return {.begin = prefix, .end = after_prefix(prefix)};
}

}  // namespace spore::calls
