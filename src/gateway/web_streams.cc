#include "gateway/web_streams.h"

#include "gateway/cgi.h"

namespace spore::gateway {

WebStreams::WebStreams(UniqueFd body, MemoryBudget& memory, Verb method, Responder responder,
                       std::function<void(Response&)> complete_head, std::function<void()> gone)
    : body_(std::move(body)),
      memory_(memory),
      method_(method),
      responder_(std::move(responder)),
      complete_head_(std::move(complete_head)),
      gone_(std::move(gone)) {
  responder_.when_gone(gone_);
}

int WebStreams::begin_output(Bytes& so_far) {
  auto beginning = parse_cgi_beginning(so_far, method_);
  if (!beginning) return -1;
  complete_head_(beginning->response);
  responder_.when_gone(gone_);
  const int stream = responder_.begin_body(beginning->response, beginning->content_length);
  if (stream < 0) return -1;
  status_ = beginning->response.status;
  so_far = {};
  return stream;
}

}  // namespace spore::gateway
