#include "processes/protocol.h"

#include <algorithm>

namespace spore::processes {

namespace {

void write_digest(ByteWriter& out, const Digest& digest) {
  for (const uint8_t byte : digest) out.write(byte);
}
void read_digest(ByteReader& in, Digest& digest) {
  for (uint8_t& byte : digest) byte = in.read<uint8_t>();
}

}  // namespace

void write_texts(ByteWriter& out, const std::vector<std::string>& texts) {
  out.write<uint64_t>(texts.size());
  for (const std::string& text : texts) out.write_text(text);
}

bool read_texts(ByteReader& in, std::vector<std::string>& texts) {
  const uint64_t count = in.read_count(8);
  for (uint64_t i = 0; i < count; ++i) texts.push_back(in.read_text());
  return in.ok();
}

Bytes Setup::write() const {
  ByteWriter out;
  out.write_text(tenant);
  out.write(seats);
  for (const uint64_t number : {queue_max, log_bytes_max, tenant_concurrency_max}) out.write(number);
  for (const uint64_t number :
       {uint64_t{chain.depth_max}, uint64_t{chain.children_max}, uint64_t{chain.tree_calls_max}, chain.tree_bytes_max,
        chain.input_bytes_max, uint64_t{chain.graphs_max}, uint64_t{chain.graph_calls_max}})
    out.write(number);
  for (const bool is : {precise_clock, preempt, state}) out.write<uint8_t>(is);
  out.write(state_threads);
  for (const uint64_t number :
       {state_bytes_max, state_values_max, state_timeout_ms, lock_lease_ms, initialise_timeout_ms, slots_max, idle_max,
        idle_per_function_max, idle_bytes_max, memory_left_min, memory_bytes_max})
    out.write(number);
  out.write<uint8_t>(resolver.has_value());
  const isolation::IpAddress address = resolver.value_or(isolation::IpAddress{});
  out.write<uint8_t>(address.v6);
  for (const uint8_t byte : address.bytes) out.write(byte);
  out.write_text(shared_files);
  out.write<uint64_t>(mounts.size());
  for (const Mount& mount : mounts) {
    out.write_text(mount.name);
    out.write_text(mount.from);
    out.write<uint8_t>(mount.writable);
  }
  return out.take();
}

std::optional<Setup> Setup::parse(ByteSpan bytes) {
  ByteReader in(bytes);
  Setup out;
  out.tenant = in.read_text();
  out.seats = in.read<unsigned>();
  for (uint64_t* number : {&out.queue_max, &out.log_bytes_max, &out.tenant_concurrency_max})
    *number = in.read<uint64_t>();
  out.chain.depth_max = static_cast<uint32_t>(in.read<uint64_t>());
  out.chain.children_max = in.read<uint64_t>();
  out.chain.tree_calls_max = in.read<uint64_t>();
  out.chain.tree_bytes_max = in.read<uint64_t>();
  out.chain.input_bytes_max = in.read<uint64_t>();
  out.chain.graphs_max = in.read<uint64_t>();
  out.chain.graph_calls_max = in.read<uint64_t>();
  for (bool* is : {&out.precise_clock, &out.preempt, &out.state}) *is = in.read<uint8_t>() != 0;
  out.state_threads = in.read<unsigned>();
  for (uint64_t* number : {&out.state_bytes_max, &out.state_values_max, &out.state_timeout_ms, &out.lock_lease_ms,
                           &out.initialise_timeout_ms, &out.slots_max, &out.idle_max, &out.idle_per_function_max,
                           &out.idle_bytes_max, &out.memory_left_min, &out.memory_bytes_max})
    *number = in.read<uint64_t>();
  const bool has_resolver = in.read<uint8_t>() != 0;
  isolation::IpAddress address;
  address.v6 = in.read<uint8_t>() != 0;
  for (uint8_t& byte : address.bytes) byte = in.read<uint8_t>();
  if (has_resolver) out.resolver = address;
  out.shared_files = in.read_text();
  const uint64_t mounts = in.read_count(8 + 8 + 1);
  for (uint64_t i = 0; i < mounts; ++i) {
    Mount mount{.name = in.read_text()};
    mount.from = in.read_text();
    mount.writable = in.read<uint8_t>() != 0;
    out.mounts.push_back(std::move(mount));
  }
  if (!in.ok() || !in.at_end()) return std::nullopt;
  return out;
}

Bytes CallFrame::write() const {
  ByteWriter out;
  for (const uint8_t byte : id.bytes) out.write(byte);
  out.write_text(function);
  out.write(version);
  write_digest(out, module_digest);
  out.write(deadline_ns);
  out.write(loading_us);
  out.write(priority);
  out.write<uint8_t>(has_streams);
  write_texts(out, arguments);
  write_texts(out, environment);
  return out.take();
}

std::optional<CallFrame> CallFrame::parse(ByteSpan bytes, ByteSpan& input) {
  ByteReader in(bytes);
  CallFrame out;
  for (uint8_t& byte : out.id.bytes) byte = in.read<uint8_t>();
  out.function = in.read_text();
  out.version = in.read<uint64_t>();
  read_digest(in, out.module_digest);
  out.deadline_ns = in.read<int64_t>();
  out.loading_us = in.read<int64_t>();
  out.priority = in.read<worker::Priority>();
  out.has_streams = in.read<uint8_t>() != 0;
  if (!read_texts(in, out.arguments) || !read_texts(in, out.environment)) return std::nullopt;
  input = in.rest();
  return out;
}

void write_ended(ByteWriter& out, const worker::CallResult& result) {
  worker::write(out, result);
  out.write(result.output_streamed);
  out.write_bytes(result.log);
  out.write_bytes(result.output);
}

std::optional<worker::CallResult> read_ended(ByteReader& in) {
  worker::CallResult out;
  if (!worker::read(in, out)) return std::nullopt;
  out.output_streamed = in.read<uint64_t>();
  const ByteSpan log = in.read_bytes();
  const ByteSpan output = in.read_bytes();
  if (!in.ok() || !in.at_end()) return std::nullopt;
  out.log.assign(log.begin(), log.end());
  out.output.assign(output.begin(), output.end());
  const auto too_long = [](const std::string& text) { return text.size() > kTextBytesMax; };
  if (too_long(out.trap.message) || too_long(out.error.message) || out.trap.stack.size() > faaslet::kFramesMax ||
      std::ranges::any_of(out.trap.stack, too_long, &faaslet::Frame::function))
    return std::nullopt;
  for (const auto time : {out.queued, out.starting, out.duration, out.usage.cpu})
    if (time.count() < 0 || time > std::chrono::hours(24 * 365)) return std::nullopt;
  return out;
}

Bytes write(const FunctionParts& parts) {
  ByteWriter out;
  out.write(parts.version);
  write_digest(out, parts.module_digest);
  out.write_text(parts.config);
  out.write(parts.object_bytes);
  return out.take();
}

std::optional<FunctionParts> read_function_parts(ByteSpan bytes) {
  ByteReader in(bytes);
  FunctionParts out;
  out.version = in.read<uint64_t>();
  read_digest(in, out.module_digest);
  out.config = in.read_text();
  out.object_bytes = in.read<uint64_t>();
  if (!in.ok() || !in.at_end()) return std::nullopt;
  return out;
}

Frame answer_frame(uint64_t id, Result<Bytes> answer, std::vector<UniqueFd> descriptors) {
  ByteWriter out;
  Frame frame{.kind = static_cast<uint16_t>(FrameKind::kAnswer), .id = id};
  out.write<uint8_t>(answer.has_value());
  if (answer) {
    frame.more = std::move(*answer);
    frame.descriptors = std::move(descriptors);
  } else {
    out.write(answer.error().code);
    out.write_text(answer.error().message);
  }
  frame.body = out.take();
  return frame;
}

Result<Bytes> read_answer(ByteSpan body) {
  ByteReader in(body);
  if (in.read<uint8_t>() != 0) {
    const ByteSpan rest = in.rest();
    return Bytes(rest.begin(), rest.end());
  }
  const auto code = in.read<ErrorCode>();
  std::string message = in.read_text();
  if (!in.ok()) return fail(ErrorCode::kInternal, "the host's answer cannot be read");
  return fail(code, std::move(message));
}

void write_optional(ByteWriter& out, const std::optional<state::Version>& version) {
  out.write<uint8_t>(version.has_value());
  out.write(version.value_or(state::Version{}).epoch);
  out.write(version.value_or(state::Version{}).number);
}

std::optional<state::Version> read_optional_version(ByteReader& in) {
  const bool there = in.read<uint8_t>() != 0;
  state::Version out;
  out.epoch = in.read<uint64_t>();
  out.number = in.read<uint64_t>();
  return there ? std::optional(out) : std::nullopt;
}

void write(ByteWriter& out, const state::Manifest& manifest) {
  out.write(manifest.version.epoch);
  out.write(manifest.version.number);
  out.write(manifest.size_bytes);
}

state::Manifest read_manifest(ByteReader& in) {
  state::Manifest out;
  out.version.epoch = in.read<uint64_t>();
  out.version.number = in.read<uint64_t>();
  out.size_bytes = in.read<uint64_t>();
  return out;
}

void write(ByteWriter& out, const state::Push& push) {
  out.write(push.merge);
  out.write(push.element);
  out.write<uint8_t>(push.size_bytes.has_value());
  out.write(push.size_bytes.value_or(0));
  out.write<uint8_t>(push.replace);
  out.write<uint8_t>(push.append.has_value());
  out.write_bytes(push.append.value_or(ByteSpan()));
  write_optional(out, push.expected);
  out.write_text(push.once);
  out.write(push.lock_token);
  out.write<uint64_t>(push.patches.size());
  for (const state::Patch& patch : push.patches) {
    out.write(patch.offset);
    out.write_bytes(patch.bytes);
  }
}

bool read_push(ByteReader& in, state::Push& push) {
  push.merge = in.read<state::MergeOp>();
  push.element = in.read<state::Element>();
  const bool has_size = in.read<uint8_t>() != 0;
  const auto size_bytes = in.read<uint64_t>();
  if (has_size) push.size_bytes = size_bytes;
  push.replace = in.read<uint8_t>() != 0;
  const bool has_append = in.read<uint8_t>() != 0;
  const ByteSpan append = in.read_bytes();
  if (has_append) push.append = append;
  push.expected = read_optional_version(in);
  push.once = in.read_text();
  push.lock_token = in.read<uint64_t>();
  const uint64_t patches = in.read_count(8 + 8);
  push.patches.reserve(patches);
  for (uint64_t i = 0; i < patches; ++i) {
    state::Patch patch{.offset = in.read<uint64_t>()};
    patch.bytes = in.read_bytes();
    push.patches.push_back(patch);
  }
  return in.ok() && in.at_end() && push.merge <= state::MergeOp::kMax && push.element <= state::Element::kF64;
}

}  // namespace spore::processes
