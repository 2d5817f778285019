#include "processes/host_line.h"

namespace spore::processes {

Frame HostLine::request(uint64_t id, RequestKind kind, ByteSpan arguments) {
  Frame frame{.kind = static_cast<uint16_t>(FrameKind::kRequest), .id = id, .body = {static_cast<uint8_t>(kind)}};
  frame.more.assign(arguments.begin(), arguments.end());
  return frame;
}

Result<Answer> HostLine::ask(RequestKind kind, ByteSpan arguments, Clock::time_point deadline) {
  if (arguments.size() >= kRequestBytesMax)
    return fail(ErrorCode::kResourceExhausted, "so much at once (" + std::to_string(arguments.size()) +
                                                   " bytes) does not leave a process of a tenant; at most " +
                                                   std::to_string(kRequestBytesMax) + " do");
  Waiter self;
  uint64_t id = 0;
  {
    auto state = state_.lock();
    id = ++state->last_id;
    state->waiting.emplace(id, &self);
  }
  const auto sent = link_.send(request(id, kind, arguments));
  auto state = state_.lock();
  while (sent && !self.answered)
    if (answered_.wait_until(state.lock(), deadline) == std::cv_status::timeout) break;
  state->waiting.erase(id);
  if (!sent) return std::unexpected(sent.error());
  if (self.answered) return std::move(self.answer);
  return fail(ErrorCode::kDeadlineExceeded, "the host did not answer in time");
}

void HostLine::tell(RequestKind kind, ByteSpan arguments) { (void)link_.send(request(0, kind, arguments)); }

void HostLine::delivered(Frame answer) {
  auto bytes = read_answer(answer.body);
  auto state = state_.lock();
  const auto found = state->waiting.find(answer.id);
  if (found == state->waiting.end()) return;  // too late
  found->second->answered = true;
  if (bytes)
    found->second->answer = Answer{.bytes = std::move(*bytes), .descriptors = std::move(answer.descriptors)};
  else
    found->second->answer = std::unexpected(std::move(bytes).error());
  answered_.notify_all();
}

}  // namespace spore::processes
