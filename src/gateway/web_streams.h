// The bodies of one web request and its answer, where they are too large to be held. The worker runs the call with them
// (worker::StreamedCall), and they give the answer's beginning to the client as soon as there is more of it.
//
// begin_output() and hold_input() are called on the thread that runs the call, everything else before the call is
// submitted or after it has ended.
#pragma once

#include <functional>

#include "base/fd.h"
#include "gateway/http.h"
#include "gateway/memory_budget.h"
#include "gateway/server.h"
#include "worker/call.h"

namespace spore::gateway {

class WebStreams final : public worker::StreamedCall {
 public:
  // `body`: where the request's comes from; not valid where it is held. `complete_head` adds the host's own fields.
  // `gone` is called where the client goes away while a body is under way.
  WebStreams(UniqueFd body, MemoryBudget& memory, Verb method, Responder responder,
             std::function<void(Response&)> complete_head, std::function<void()> gone);

  int input() const override { return body_.valid() ? body_.get() : -1; }
  bool hold_input(uint64_t bytes) override { return held_.grow_to(memory_, bytes); }
  int begin_output(Bytes& so_far) override;

  // The memory that hold_input() has taken is free again.
  void release_input() { held_.release(); }

  // The status that the client has got already; 0: none, and `responder` is still to answer.
  unsigned status() const { return status_; }
  Responder& responder() { return responder_; }

 private:
  UniqueFd body_;
  MemoryBudget& memory_;
  MemoryBudget::Share held_;
  const Verb method_;
  Responder responder_;
  const std::function<void(Response&)> complete_head_;
  const std::function<void()> gone_;
  unsigned status_ = 0;
};

}  // namespace spore::gateway
