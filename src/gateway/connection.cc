#include "gateway/connection.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <cstdio>

namespace spore::gateway {
namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

namespace {

constexpr size_t kLargeBufferBytes = 64 << 10;
static_assert(kLargeBufferBytes > kHeaderBytesMax);
constexpr uint64_t kDiscardBytesMax = 64 << 10;      // a refused body up to here is read, and the connection kept
constexpr uint64_t kLingerBytesMax = 4ull << 30;     // of a refused body, read while its sender notices
constexpr size_t kStreamUnsentBytesMax = 256 << 10;  // of events that a client has not read

constexpr size_t kPipeBytes = 64 << 10;  // of a body on its way

constexpr int64_t kLookForClientAfterNs = 50'000'000;  // from when the sweeper sees a request being handled

std::string chunk_head(size_t bytes) {
  char text[24];
  const int length = std::snprintf(text, sizeof(text), "%zx\r\n", bytes);
  return {text, static_cast<size_t>(length)};
}

int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

}  // namespace

Connection::Connection(asio::ip::tcp::socket socket, Server& server, Listener listener)
    : server_(server), socket_(std::move(socket)) {
  request_.listener = listener;
}

Connection::~Connection() { server_.remove(this); }

void Connection::start() {
  error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  socket_.native_non_blocking(true, ignored);
  enter(Phase::kIdle, server_.options_.header_timeout_ms);
  read();
}

void Connection::enter(Phase phase, unsigned timeout_ms) {
  phase_.store(phase, std::memory_order_relaxed);
  deadline_ns_.store(timeout_ms ? now_ns() + int64_t{timeout_ms} * 1'000'000 : INT64_MAX, std::memory_order_relaxed);
}

void Connection::sweep_at(int64_t now) {
  const bool upload_late = now >= upload_deadline_ns_.load(std::memory_order_relaxed);
  const Phase phase = phase_.load(std::memory_order_relaxed);
  if (phase == Phase::kHandling) {
    int64_t from = 0;  // where this is the first time that it is seen
    if (!look_from_ns_.compare_exchange_strong(from, now + kLookForClientAfterNs) && now >= from) look_whether_gone();
  }
  if (now < deadline_ns_.load(std::memory_order_relaxed) && !upload_late) return;
  if (upload_late && phase != Phase::kClosed) {
    const std::lock_guard lock(close_mutex_);
    if (!closed_) ::shutdown(socket_.native_handle(), SHUT_RDWR);
    return;
  }
  if (phase == Phase::kHandling || phase == Phase::kClosed) return;
  const std::lock_guard lock(close_mutex_);
  if (closed_) return;
  // A client that is too slow to ask is told so by the pending read, which ends now.
  const bool asking = phase == Phase::kHeader || phase == Phase::kBody;
  if (asking) timed_out_.store(true, std::memory_order_relaxed);
  ::shutdown(socket_.native_handle(), asking ? SHUT_RD : SHUT_RDWR);
}

// Nothing reads while a request is being handled, and short calls are over before anybody looks. Bytes of a next
// request are no sign of anything; the end of what the client sends is, as a client that has gone away looks like that.
void Connection::look_whether_gone() {
  {
    const std::lock_guard lock(close_mutex_);
    if (closed_) return;
    pollfd client{.fd = socket_.native_handle(), .events = POLLRDHUP, .revents = 0};
    if (::poll(&client, 1, 0) <= 0) return;
    char byte;
    const bool broken = (client.revents & (POLLERR | POLLHUP)) != 0;
    if (!broken && ::recv(client.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0) return;
  }
  tell_gone();
}

void Connection::close_if_idle() {
  if (phase_.load(std::memory_order_relaxed) != Phase::kIdle) return;
  const std::lock_guard lock(close_mutex_);
  if (!closed_) ::shutdown(socket_.native_handle(), SHUT_RD);
}

void Connection::close() {
  phase_.store(Phase::kClosed, std::memory_order_relaxed);
  const std::lock_guard lock(close_mutex_);
  if (closed_) return;
  closed_ = true;
  error_code ignored;
  socket_.close(ignored);
}

// ---- reading --------------------------------------------------------------------------------------------------------

void Connection::read() {
  const std::lock_guard lock(close_mutex_);
  socket_.async_read_some(
      asio::buffer(buffer_ + end_, capacity_ - end_),
      [self = shared_from_this()](const error_code& error, size_t count) { self->on_read(error, count); });
}

void Connection::on_read(const error_code& error, size_t count) {
  if (error) {
    if (timed_out_.load(std::memory_order_relaxed) && parser_) {
      answer_and_close(server_.application_.error(408, "the request took too long to arrive"));
    } else {
      close();
    }
    return;
  }
  end_ += count;
  advance();
}

void Connection::advance() {
  while (parse_and_dispatch()) {
  }
}

void Connection::make_room() {
  if (begin_ > 0) {
    std::copy(buffer_ + begin_, buffer_ + end_, buffer_);
    end_ -= begin_;
    begin_ = 0;
  }
  const bool wants_large = end_ == capacity_ || upload_ || phase_.load(std::memory_order_relaxed) == Phase::kBody;
  if (wants_large && large_buffer_.empty()) {
    large_buffer_.resize(kLargeBufferBytes);
    std::copy(buffer_, buffer_ + end_, large_buffer_.data());
    buffer_ = large_buffer_.data();
    capacity_ = large_buffer_.size();
  } else if (!wants_large && !large_buffer_.empty() && end_ == 0) {
    buffer_ = small_buffer_.data();
    capacity_ = small_buffer_.size();
    large_buffer_ = {};
  }
}

bool Connection::parse_and_dispatch() {
  if (!parser_ && begin_ < end_) {
    parser_.emplace(request_);
    header_decided_ = false;
  }
  while (parser_ && !parser_->is_done()) {
    bool need_more = begin_ == end_;
    if (!need_more) {
      error_code error;
      begin_ += parser_->put(asio::const_buffer(buffer_ + begin_, end_ - begin_), error);
      need_more = error == http::error::need_more;
      if (error && !need_more) {
        if (parser_->refusal() != BodyRefusal::kNone) return answer_and_close(error_of_body(error));
        if (error == http::error::header_limit) {
          return answer_and_close(
              server_.application_.error(431, "the header is larger than 32 KiB, or has more than 128 fields"));
        }
        if (parser_->target_too_long()) {
          return answer_and_close(server_.application_.error(414, "the request target is longer than 8 KiB"));
        }
        if (error == http::error::bad_version) {
          return answer_and_close(server_.application_.error(505, "only HTTP/1.0 and HTTP/1.1 are spoken here"));
        }
        return answer_and_close(error_of_body(error));
      }
    }
    if (parser_->is_header_done() && !header_decided_) {
      header_decided_ = true;
      if (!decide_on_header()) return false;
    }
    if (is_upload_due()) return begin_upload();
    if (need_more && !parser_->is_done()) break;
  }
  if (parser_ && parser_->is_done()) {
    if (refusal_) {
      Response refusal = std::move(*refusal_);
      refusal_.reset();
      return go_on(send_response(std::move(refusal)));
    }
    return handle();
  }
  if (parser_) {
    if (!parser_->is_header_done()) {
      if (phase_.load(std::memory_order_relaxed) == Phase::kIdle) {
        enter(Phase::kHeader, server_.options_.header_timeout_ms);
      }
    } else {
      if (phase_.load(std::memory_order_relaxed) != Phase::kBody) {
        phase_limit_ns_ = now_ns() + int64_t{server_.options_.body_timeout_ms} * 1'000'000;
      }
      enter(Phase::kBody, server_.options_.progress_timeout_ms);
      if (deadline_ns_.load(std::memory_order_relaxed) > phase_limit_ns_) deadline_ns_.store(phase_limit_ns_);
    }
  }
  make_room();
  read();
  return false;
}

Response Connection::error_of_body(const error_code& error) {
  switch (parser_->refusal()) {
    case BodyRefusal::kTooLarge:
      return server_.application_.error(413, "the body is larger than this endpoint accepts");
    case BodyRefusal::kNoMemory:
      return server_.application_.error(503, "the memory set aside for request bodies is all in use");
    case BodyRefusal::kNone: break;
  }
  return server_.application_.error(400, "malformed HTTP: " + error.message());
}

// Of a connection that is gone already they stay empty.
void Connection::fill_in_addresses() {
  error_code error;
  const auto remote = socket_.remote_endpoint(error);
  if (!error) request_.remote_address = remote.address().to_string();
  const auto local = socket_.local_endpoint(error);
  if (error) return;
  request_.local_address = local.address().to_string();
  request_.local_port = local.port();
}

bool Connection::decide_on_header() {
  server_.requests_.fetch_add(1, std::memory_order_relaxed);
  keep_alive_ = request_.keep_alive;
  if (request_.repeated_host || (request_.version == 11 && !request_.has(Field::kHost))) {
    return refuse(server_.application_.error(400, "a request has exactly one Host field"));
  }
  if (request_.is_web() && request_.local_port == 0) fill_in_addresses();
  auto admitted = server_.application_.admit(request_);
  if (auto* response = std::get_if<Response>(&admitted)) return refuse(std::move(*response));
  const uint64_t body_bytes_max = std::get<BodyRule>(admitted).bytes_max;
  body_held_max_ = std::get<BodyRule>(admitted).held_max;
  if (parser_->is_done()) return true;
  if (request_.content_length.value_or(0) > body_bytes_max) {
    return refuse(server_.application_.error(413, "the body has " + std::to_string(*request_.content_length) +
                                                      " bytes; this endpoint accepts " +
                                                      std::to_string(body_bytes_max)));
  }
  if (begin_ == end_ && request_.version == 11 && request_.field(Field::kExpect) == "100-continue") {
    constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    if (::send(socket_.native_handle(), kContinue.data(), kContinue.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
      close();
      return false;
    }
  }
  parser_->take_body(body_bytes_max, server_.memory_);
  return true;
}

bool Connection::refuse(Response response) {
  if (parser_->is_done()) {
    refusal_ = std::move(response);
    return true;
  }
  // A client that waits for 100-continue sends no body now, so that the next bytes would be something else.
  if (!request_.chunked && request_.content_length.value_or(0) <= kDiscardBytesMax && !request_.has(Field::kExpect)) {
    parser_->discard_body(kDiscardBytesMax);
    refusal_ = std::move(response);
    return true;
  }
  answer_and_close(std::move(response));
  return false;
}

bool Connection::answer_and_close(Response response) {
  response.close = true;
  return go_on(send_response(std::move(response)));
}

bool Connection::handle() {
  enter(Phase::kHandling, 0);
  look_from_ns_.store(begin_ == end_ ? 0 : INT64_MAX, std::memory_order_relaxed);
  handover_.store(Handover::kInHandle, std::memory_order_relaxed);
  server_.application_.handle(request_, Responder(shared_from_this()));
  auto expected = Handover::kInHandle;
  if (handover_.compare_exchange_strong(expected, Handover::kLeftHandle, std::memory_order_acq_rel)) return false;
  return go_on(sent_state_);
}

// ---- writing --------------------------------------------------------------------------------------------------------

void Connection::respond(Response response) {
  {
    const std::lock_guard lock(exchange_mutex_);
    if (upload_error_) response = std::move(*upload_error_);
    upload_error_.reset();
  }
  conclude(send_response(std::move(response)));
}

// The response is all sent, waits for the client, or has failed: the owner goes on from there.
void Connection::conclude(Sent sent) {
  sent_state_ = sent;
  if (handover_.exchange(Handover::kResponded, std::memory_order_acq_rel) == Handover::kInHandle) return;
  // Not here: the next request must not begin inside what ended this one.
  asio::post(server_.io_, [self = shared_from_this()] {
    if (self->go_on(self->sent_state_)) self->advance();
  });
}

Connection::Sent Connection::send_response(Response response) {
  body_share_.release();
  if (!body_share_.grow_to(server_.memory_, response.body.size())) {
    response = server_.application_.error(503, "the memory set aside for responses is all in use");
  }
  close_after_ = response.close || !keep_alive_ || server_.draining();
  head_.clear();
  write_head(response, request_.version, close_after_ ? KeepAlive::kNo : KeepAlive::kYes, head_);
  body_ = std::move(response.body);
  if (request_.method == Verb::head) body_.clear();
  sent_ = 0;
  return flush();
}

Connection::Sent Connection::flush() {
  const size_t total = head_.size() + body_.size();
  while (sent_ < total) {
    iovec parts[2];
    msghdr message{};
    message.msg_iov = parts;
    if (sent_ < head_.size()) parts[message.msg_iovlen++] = {head_.data() + sent_, head_.size() - sent_};
    const size_t body_sent = sent_ > head_.size() ? sent_ - head_.size() : 0;
    if (body_sent < body_.size()) parts[message.msg_iovlen++] = {body_.data() + body_sent, body_.size() - body_sent};
    const ssize_t count = ::sendmsg(socket_.native_handle(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN || errno == EWOULDBLOCK ? Sent::kBlocked : Sent::kFailed;
    }
    sent_ += static_cast<size_t>(count);
  }
  return Sent::kAll;
}

bool Connection::go_on(Sent sent) {
  switch (sent) {
    case Sent::kAll: return finish_response();
    case Sent::kBlocked:
      enter(Phase::kWriting, server_.options_.progress_timeout_ms);
      wait_writable();
      return false;
    case Sent::kFailed: {
      {
        // An upload that goes on uses the socket still, and finds it shut down.
        const std::lock_guard lock(exchange_mutex_);
        responded_ = true;
        const std::lock_guard closing(close_mutex_);
        if (uploading_ && !closed_) {
          ::shutdown(socket_.native_handle(), SHUT_RDWR);
          return false;
        }
      }
      close();
      return false;
    }
  }
  return false;
}

void Connection::wait_writable() {
  const std::lock_guard lock(close_mutex_);
  socket_.async_wait(asio::ip::tcp::socket::wait_write, [self = shared_from_this()](const error_code& error) {
    if (error) return self->close();
    if (self->go_on(self->flush())) self->advance();
  });
}

bool Connection::finish_response() {
  body_ = {};
  body_share_.release();
  {
    const std::lock_guard lock(exchange_mutex_);
    gone_ = nullptr;
    responded_ = true;
    if (uploading_) {
      // The client may still be sending what nobody wants any more; the upload goes on with the connection.
      enter(Phase::kLinger, server_.options_.linger_ms);
      const std::lock_guard closing(close_mutex_);
      if (!closed_) ::shutdown(socket_.native_handle(), SHUT_WR);
      return false;
    }
    responded_ = false;
  }
  parser_.reset();
  request_.clear();
  if (close_after_) {
    linger();
    return false;
  }
  enter(Phase::kIdle, server_.options_.idle_timeout_ms);
  return true;
}

void Connection::drop() { respond(server_.application_.error(500, "the request was dropped without an answer")); }

// Closing while the client still sends would discard the response under way; so what it sends is read for a while.
void Connection::linger() {
  enter(Phase::kLinger, server_.options_.linger_ms);
  begin_ = end_ = 0;
  lingered_bytes_ = 0;
  {
    const std::lock_guard lock(close_mutex_);
    if (closed_) return;
    ::shutdown(socket_.native_handle(), SHUT_WR);
  }
  on_linger({}, 0);
}

void Connection::on_linger(const error_code& error, size_t count) {
  lingered_bytes_ += count;
  if (error || lingered_bytes_ > kLingerBytesMax) return close();
  if (lingered_bytes_ > capacity_ && large_buffer_.empty()) {
    large_buffer_.resize(kLargeBufferBytes);
    buffer_ = large_buffer_.data();
    capacity_ = large_buffer_.size();
  }
  const std::lock_guard lock(close_mutex_);
  socket_.async_read_some(asio::buffer(buffer_, capacity_),
                          [self = shared_from_this()](const error_code& read_error, size_t read_count) {
                            self->on_linger(read_error, read_count);
                          });
}

// ---- large bodies of requests ---------------------------------------------------------------------------------------

bool Connection::is_upload_due() const {
  if (!parser_->is_header_done() || parser_->is_done() || refusal_) return false;
  return std::max<uint64_t>(request_.content_length.value_or(0), request_.body.size()) > body_held_max_;
}

bool Connection::begin_upload() {
  int ends[2];
  if (!request_.body_share.grow_to(server_.memory_, 2 * kPipeBytes) || ::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
    return answer_and_close(server_.application_.error(503, "the means for streamed bodies are all in use"));
  }
  request_.body_stream = UniqueFd(ends[0]);
  upload_.emplace(server_.io_, ends[1]);
  uploaded_ = 0;
  parser_->pass_body_on();
  keep_alive_ = false;
  {
    const std::lock_guard lock(exchange_mutex_);
    uploading_ = true;
  }
  enter(Phase::kHandling, 0);
  look_from_ns_.store(INT64_MAX, std::memory_order_relaxed);  // the upload sees it
  handover_.store(Handover::kInHandle, std::memory_order_relaxed);
  server_.application_.handle(request_, Responder(shared_from_this()));
  auto expected = Handover::kInHandle;
  if (!handover_.compare_exchange_strong(expected, Handover::kLeftHandle, std::memory_order_acq_rel)) {
    {
      const std::lock_guard lock(exchange_mutex_);
      uploading_ = false;
    }
    upload_.reset();
    return go_on(sent_state_);
  }
  go_on_uploading();
  return false;
}

// Until the pipe is full, the client has sent nothing more, or the body is at its end.
void Connection::go_on_uploading() {
  upload_deadline_ns_.store(INT64_MAX, std::memory_order_relaxed);
  while (true) {
    switch (fill_upload_pipe()) {
      case Sent::kAll: break;
      case Sent::kFailed: return end_upload(true);  // nobody reads it: the call has ended
      case Sent::kBlocked:
        upload_->async_wait(asio::posix::stream_descriptor::wait_write,
                            [self = shared_from_this()](const error_code& error) {
                              error ? self->end_upload(true) : self->go_on_uploading();
                            });
        return;
    }
    if (parser_->is_done()) return end_upload(true);
    if (begin_ == end_) break;
    error_code error;
    begin_ += parser_->put(asio::const_buffer(buffer_ + begin_, end_ - begin_), error);
    if (error == http::error::need_more) {
      if (request_.body.empty()) break;
    } else if (error) {
      return refuse_upload(error_of_body(error));
    }
  }
  make_room();
  upload_deadline_ns_.store(now_ns() + int64_t{server_.options_.progress_timeout_ms} * 1'000'000,
                            std::memory_order_relaxed);
  const std::lock_guard lock(close_mutex_);
  socket_.async_read_some(
      asio::buffer(buffer_ + end_, capacity_ - end_),
      [self = shared_from_this()](const error_code& error, size_t count) { self->on_upload_read(error, count); });
}

// Moves what has been parsed into the pipe.
Connection::Sent Connection::fill_upload_pipe() {
  Bytes& body = request_.body;
  while (uploaded_ < body.size()) {
    const ssize_t count = ::write(upload_->native_handle(), body.data() + uploaded_, body.size() - uploaded_);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno == EAGAIN ? Sent::kBlocked : Sent::kFailed;
    uploaded_ += static_cast<size_t>(count);
  }
  body.clear();
  uploaded_ = 0;
  return Sent::kAll;
}

void Connection::on_upload_read(const error_code& error, size_t count) {
  {
    const std::lock_guard lock(exchange_mutex_);
    if (responded_) uploading_ = false;
  }
  if (!uploading_) {  // only this thread makes it true or false
    upload_deadline_ns_.store(INT64_MAX, std::memory_order_relaxed);
    return error ? close() : on_linger({}, count);
  }
  if (error) return end_upload(false);
  end_ += count;
  go_on_uploading();
}

void Connection::end_upload(bool complete) {
  upload_deadline_ns_.store(INT64_MAX, std::memory_order_relaxed);
  if (complete) upload_.reset();
  if (!complete) tell_gone();
  const std::lock_guard lock(exchange_mutex_);
  uploading_ = false;
  const std::lock_guard closing(close_mutex_);
  if (closed_) return;
  if (!complete) ::shutdown(socket_.native_handle(), SHUT_RDWR);
  // Else the response goes on with the connection.
  if (responded_) asio::post(server_.io_, [self = shared_from_this()] { self->linger(); });
}

// What is wrong with the body is the answer, if none has begun; the call is over.
void Connection::refuse_upload(Response response) {
  {
    const std::lock_guard lock(exchange_mutex_);
    uploading_ = false;
    upload_error_ = std::move(response);
    if (responded_) asio::post(server_.io_, [self = shared_from_this()] { self->linger(); });
  }
  tell_gone();
}

void Connection::tell_gone() {
  std::function<void()> gone;
  {
    const std::lock_guard lock(exchange_mutex_);
    gone = std::exchange(gone_, nullptr);
  }
  // Not here: it may answer.
  if (gone) asio::post(server_.io_, std::move(gone));
}

// ---- large bodies of responses --------------------------------------------------------------------------------------

int Connection::begin_body(Response& response, std::optional<uint64_t> content_length) {
  int ends[2];
  if (content_length.value_or(UINT64_MAX) < response.body.size()) return -1;
  body_share_.release();
  if (!body_share_.grow_to(server_.memory_, response.body.size() + 2 * kPipeBytes)) return -1;
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return -1;
  body_pipe_.emplace(server_.io_, ends[0]);
  body_chunked_ = !content_length && request_.version != 10;
  close_after_ = response.close || !keep_alive_ || server_.draining() || (!content_length && !body_chunked_);
  response.length = Response::Length::kInFields;
  if (content_length) response.add_field("Content-Length", std::to_string(*content_length));
  if (body_chunked_) response.add_field("Transfer-Encoding", "chunked");
  head_.clear();
  write_head(response, request_.version, close_after_ ? KeepAlive::kNo : KeepAlive::kYes, head_);
  body_ = std::move(response.body);
  body_left_ = content_length;
  if (body_left_) *body_left_ -= body_.size();
  if (body_chunked_ && !body_.empty()) head_ += chunk_head(body_.size());
  sent_ = 0;
  {
    const std::lock_guard lock(exchange_mutex_);
    body_writer_ = UniqueFd(ends[1]);
    body_complete_ = false;
  }
  asio::post(server_.io_, [self = shared_from_this()] { self->go_on_with_body(self->flush()); });
  return ends[1];
}

void Connection::end_body(bool complete) {
  const std::lock_guard lock(exchange_mutex_);
  body_complete_ = complete;
  body_writer_.reset();
}

void Connection::go_on_with_body(Sent sent) {
  bool waits = false, ended = false;
  while (sent == Sent::kAll) {
    sent = next_piece_of_body(waits, ended);
    if (waits || ended) break;
  }
  if (sent == Sent::kFailed) {
    body_pipe_.reset();
    tell_gone();
    return conclude(sent);
  }
  if (ended) {
    body_pipe_.reset();
    return conclude(sent);
  }
  enter(Phase::kStreaming, waits ? 0 : server_.options_.progress_timeout_ms);
  const auto go_on = [self = shared_from_this()](const error_code& error) {
    self->go_on_with_body(error ? Sent::kFailed : self->flush());
  };
  if (waits) {
    body_pipe_->async_wait(asio::posix::stream_descriptor::wait_read, go_on);
  } else {
    const std::lock_guard lock(close_mutex_);
    socket_.async_wait(asio::ip::tcp::socket::wait_write, go_on);
  }
}

// Sends what is in the pipe. `waits`: that is nothing yet. `ended`: that was the end of it.
Connection::Sent Connection::next_piece_of_body(bool& waits, bool& ended) {
  const bool framed = body_chunked_ && !body_.empty();  // by a line behind what has been sent
  body_.resize(kPipeBytes);
  ssize_t count = -1;
  do {
    count = ::read(body_pipe_->native_handle(), body_.data(), body_.size());
  } while (count < 0 && errno == EINTR);
  body_.resize(static_cast<size_t>(std::max<ssize_t>(count, 0)));
  if (framed) unfinished_chunk_ = true;
  if (count < 0 && errno == EAGAIN) {
    waits = true;
    return Sent::kAll;
  }
  if (count < 0) return Sent::kFailed;
  if (body_left_ && static_cast<uint64_t>(count) > *body_left_) return Sent::kFailed;
  if (body_left_) *body_left_ -= static_cast<uint64_t>(count);
  head_.clear();
  sent_ = 0;
  if (std::exchange(unfinished_chunk_, false)) head_ += "\r\n";
  if (count > 0) {
    if (body_chunked_) head_ += chunk_head(body_.size());
    return flush();
  }
  {
    const std::lock_guard lock(exchange_mutex_);
    if (!body_complete_ || body_left_.value_or(0) > 0) return Sent::kFailed;
  }
  ended = true;
  if (body_chunked_) head_ += "0\r\n\r\n";
  return flush();
}

// ---- event streams --------------------------------------------------------------------------------------------------

void Connection::begin_stream() {
  const std::lock_guard lock(stream_mutex_);
  stream_unsent_ = request_.version == 10 ? "HTTP/1.0 200 OK\r\n" : "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n";
  stream_unsent_ += "Content-Type: text/event-stream\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n";
  stream_flush();
}

bool Connection::stream_send(std::string_view text) {
  const std::lock_guard lock(stream_mutex_);
  if (stream_dead_ || stream_finished_) return false;
  if (stream_unsent_.size() + text.size() > kStreamUnsentBytesMax) {
    stream_dead_ = true;
    const std::lock_guard closing(close_mutex_);
    if (!closed_) ::shutdown(socket_.native_handle(), SHUT_RDWR);
    return false;
  }
  if (request_.version == 10) {
    stream_unsent_ += text;
  } else {
    char size[24];
    std::snprintf(size, sizeof(size), "%zx\r\n", text.size());
    stream_unsent_.append(size).append(text).append("\r\n");
  }
  stream_flush();
  return !stream_dead_;
}

void Connection::stream_finish() {
  const std::lock_guard lock(stream_mutex_);
  if (stream_finished_) return;
  stream_finished_ = true;
  if (request_.version != 10) stream_unsent_ += "0\r\n\r\n";
  stream_flush();
}

void Connection::stream_flush() {
  if (stream_waiting_ || stream_dead_) return;
  while (!stream_unsent_.empty()) {
    const ssize_t count =
        ::send(socket_.native_handle(), stream_unsent_.data(), stream_unsent_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      stream_waiting_ = true;
      enter(Phase::kStreaming, server_.options_.progress_timeout_ms);
      socket_.async_wait(asio::ip::tcp::socket::wait_write, [self = shared_from_this()](const error_code& error) {
        const std::lock_guard lock(self->stream_mutex_);
        self->stream_waiting_ = false;
        if (error) self->stream_dead_ = true;
        self->stream_flush();
      });
      return;
    }
    if (count < 0) {
      stream_dead_ = true;
      return;
    }
    stream_unsent_.erase(0, static_cast<size_t>(count));
  }
  enter(Phase::kStreaming, 0);
  if (stream_finished_) linger();
}

bool EventStream::send(std::string_view event, std::string_view data) {
  std::string text;
  text.append("event: ").append(event).append("\ndata: ").append(data).append("\n\n");
  return connection_->stream_send(text);
}

bool EventStream::ping() { return connection_->stream_send(":\n\n"); }

void EventStream::finish() { connection_->stream_finish(); }

// ---- responder ------------------------------------------------------------------------------------------------------

int Responder::begin_body(Response& response, std::optional<uint64_t> content_length) {
  return connection_->begin_body(response, content_length);
}

void Responder::end_body(bool complete) {
  const auto connection = std::move(connection_);
  connection->end_body(complete);
}

void Responder::when_gone(std::function<void()> gone) {
  const std::lock_guard lock(connection_->exchange_mutex_);
  connection_->gone_ = std::move(gone);
}

Responder::~Responder() {
  if (connection_) connection_->drop();
}

void Responder::respond(Response response) {
  const auto connection = std::move(connection_);
  connection->respond(std::move(response));
}

EventStream Responder::stream() {
  auto connection = std::move(connection_);
  connection->begin_stream();
  return EventStream(std::move(connection));
}

}  // namespace spore::gateway
