#include "host/assemblyscript.h"

#include <sys/random.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>

#include "host/spore_calls.h"
#include "host/wasi.h"

namespace spore::host::assemblyscript {

namespace {

// A text for a message is cut there; one for the console is written whole.
constexpr uint32_t kMessageBytesMax = 4096;
constexpr uint32_t kConsoleBytesMax = 16 << 20;

void append_utf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xc0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xe0 | (code >> 12));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3f));
    out += static_cast<char>(0x80 | (code & 0x3f));
  } else {
    out += static_cast<char>(0xf0 | (code >> 18));
    out += static_cast<char>(0x80 | ((code >> 12) & 0x3f));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3f));
    out += static_cast<char>(0x80 | (code & 0x3f));
  }
}

// Half a surrogate pair becomes U+FFFD.
std::string utf8_of(std::span<const uint16_t> units) {
  std::string out;
  out.reserve(units.size());
  for (size_t i = 0; i < units.size(); ++i) {
    const uint32_t unit = units[i];
    const bool high = unit >= 0xd800 && unit < 0xdc00;
    const bool low = unit >= 0xdc00 && unit < 0xe000;
    if (high && i + 1 < units.size() && units[i + 1] >= 0xdc00 && units[i + 1] < 0xe000) {
      append_utf8(out, 0x10000 + ((unit - 0xd800) << 10) + (units[++i] - 0xdc00u));
    } else {
      append_utf8(out, high || low ? 0xfffd : unit);
    }
  }
  return out;
}

// Nothing where the string is not inside memory, or longer than `bytes_max` and must not be cut.
std::optional<std::string> read_string(HostCall& call, String text, uint32_t bytes_max, bool may_cut) {
  constexpr uint32_t kSizeBytes = 4;
  const GuestMemory memory(call);
  if (text.address() < kSizeBytes) return std::nullopt;
  const auto size = GuestPtr<uint32_t>(text.address() - kSizeBytes).copy_in(memory);
  if (!size || !GuestPtr<uint8_t>(text.address()).range(memory, *size)) return std::nullopt;
  if (*size > bytes_max && !may_cut) return std::nullopt;
  std::vector<uint16_t> units(std::min(*size, bytes_max) / sizeof(uint16_t));
  if (!text.copy_in(memory, std::span(units))) return std::nullopt;
  return utf8_of(units);
}

std::string message_of(HostCall& call, String text) {
  if (text.is_null()) return "";
  return read_string(call, text, kMessageBytesMax, true).value_or("(a string outside memory)");
}

HostResult write_line(HostCall& call, Descriptor::Kind to, std::string line) {
  line += '\n';
  return calls::write_whole(call, to, {line.data(), line.size()});
}

Reply<void> console(HostCall& call, Descriptor::Kind to, String text) {
  auto line = read_string(call, text, kConsoleBytesMax, false);
  if (!line) {
    return call.trap(wasm::TrapKind::kMemoryOutOfBounds,
                     "console: the string at " + std::to_string(text.address()) + " is outside memory or too long");
  }
  return write_line(call, to, std::move(*line));
}

}  // namespace

Reply<void> abort(HostCall& call, String message, String file, uint32_t line, uint32_t column) {
  std::string text = "abort";
  if (const std::string said = message_of(call, message); !said.empty()) text += ": " + said;
  if (const std::string where = message_of(call, file); !where.empty()) {
    text += " at " + where + ":" + std::to_string(line) + ":" + std::to_string(column);
  }
  return call.trap(wasm::TrapKind::kHostCall, std::move(text));
}

Reply<void> trace(HostCall& call, String message, uint32_t count, double a0, double a1, double a2, double a3,
                  double a4) {
  std::string line = "trace: " + message_of(call, message);
  const double values[] = {a0, a1, a2, a3, a4};
  for (size_t i = 0; i < std::min<size_t>(count, std::size(values)); ++i) {
    char number[32];
    std::snprintf(number, sizeof(number), "%s%.17g", i == 0 ? " " : ", ", values[i]);
    line += number;
  }
  return write_line(call, Descriptor::Kind::kStderr, std::move(line));
}

Reply<void> console_out(HostCall& call, String text) { return console(call, Descriptor::Kind::kStdout, text); }

Reply<void> console_error(HostCall& call, String text) { return console(call, Descriptor::Kind::kStderr, text); }

Reply<double> seed(HostCall& call) {
  uint64_t random = 0;
  if (::getrandom(&random, sizeof(random), 0) != sizeof(random)) {
    return call.trap(wasm::TrapKind::kHostCall, "seed: the host has no random bytes");
  }
  return static_cast<double>(random >> 11);  // what a double holds exactly
}

Reply<double> date_now(HostCall&) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<double>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

Reply<double> still_date_now(HostCall& call) {
  const uint64_t looks = ++call.state<HostState>().still_clock_looks;
  return static_cast<double>((wasi::kStillClockNs + looks * wasi::kStillClockStepNs) / 1'000'000);
}

}  // namespace spore::host::assemblyscript
