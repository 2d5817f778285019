// One HTTP/1.1 connection: reads requests, hands each to the Application, writes its response, in this order, one at a
// time. See server.h.
//
// Phases and what ends them late:
//   kIdle --first byte--> kHeader --> kBody --> kHandling --respond--> kWriting --> kIdle ...
//                                                  |--stream--> kStreaming        --> kLinger --> closed
// In every phase but kHandling and kStreaming exactly one asynchronous operation is pending; whoever handles it owns
// the connection. In kHandling the owner is the Responder. Only sweep_at() and the members it uses are touched by
// others.
//
// Large bodies go through pipes, and a request whose body does is handled while that still arrives. Then there are two
// owners, each with one operation pending at most:
//
//   upload     client --socket--> parser --pipe--> who handles it      reading, and what belongs to it
//   response   client <--socket-- chunks <--pipe-- (begin_body)        writing, and what belongs to it
//
// The one that ends last goes on with the connection, which then ends: such a connection is not used again.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "gateway/http.h"
#include "gateway/server.h"

namespace spore::gateway {

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::ip::tcp::socket socket, Server& server, Listener listener);
  ~Connection();

  void start();
  // Ends the current phase if its time is up, and looks whether a client that waits for its answer is still there
  // (`now`: nanoseconds of the steady clock). Any thread.
  void sweep_at(int64_t now_ns);
  // Closes the connection where it waits for a request. Any thread.
  void close_if_idle();

 private:
  friend class Responder;
  friend class EventStream;
  enum class Phase : uint8_t { kIdle, kHeader, kBody, kHandling, kWriting, kStreaming, kLinger, kClosed };
  // Who goes on with the connection once it is answered: the thread inside handle(), or, when that has left, a new
  // task.
  enum class Handover : uint8_t { kInHandle, kLeftHandle, kResponded };
  enum class Sent : uint8_t { kAll, kBlocked, kFailed };

  void read();
  void on_read(const boost::system::error_code& error, size_t count);
  // Parses what is in the buffer and goes on from there, until an operation is pending or a request is being handled.
  void advance();
  // False: the connection waits, was closed, or the request is being handled elsewhere.
  bool parse_and_dispatch();
  // Both: whether parsing goes on.
  bool decide_on_header();
  Response error_of_body(const boost::system::error_code& error);
  void fill_in_addresses();
  bool refuse(Response response);
  bool answer_and_close(Response response);
  bool handle();
  void make_room();

  void respond(Response response);
  void drop();
  // Sends as much as the socket takes now, and starts no asynchronous operation.
  Sent send_response(Response response);
  Sent flush();
  // True: the next request may be parsed.
  bool go_on(Sent sent);
  bool finish_response();
  void wait_writable();
  void linger();
  void on_linger(const boost::system::error_code& error, size_t count);

  // The upload's. What ends early ends the exchange: the pipe stays open, so that no cut body looks whole.
  bool is_upload_due() const;
  bool begin_upload();
  void go_on_uploading();
  Sent fill_upload_pipe();
  void on_upload_read(const boost::system::error_code& error, size_t count);
  void end_upload(bool complete);
  void refuse_upload(Response response);

  int begin_body(Response& response, std::optional<uint64_t> content_length);
  void end_body(bool complete);
  void go_on_with_body(Sent sent);
  Sent next_piece_of_body(bool& waits, bool& ended);
  void conclude(Sent sent);
  void tell_gone();
  void look_whether_gone();

  void begin_stream();
  bool stream_send(std::string_view text);
  void stream_finish();
  void stream_flush();  // with stream_mutex_ held

  void enter(Phase phase, unsigned timeout_ms);
  void close();

  Server& server_;
  boost::asio::ip::tcp::socket socket_;
  std::array<char, 4096> small_buffer_;
  std::string large_buffer_;  // in the place of small_buffer_ where a header or body needs more
  char* buffer_ = small_buffer_.data();
  size_t capacity_ = small_buffer_.size();
  size_t begin_ = 0, end_ = 0;  // unparsed bytes

  Request request_;
  std::optional<RequestParser> parser_;
  std::optional<Response> refusal_;  // to be sent when the rest of the body has been thrown away
  bool header_decided_ = false;
  bool keep_alive_ = true;
  int64_t phase_limit_ns_ = 0;  // kBody: when it ends in any case
  uint64_t body_held_max_ = UINT64_MAX;

  std::string head_;
  Bytes body_;
  MemoryBudget::Share body_share_;
  size_t sent_ = 0;
  bool close_after_ = false;
  Sent sent_state_ = Sent::kAll;  // of respond()
  uint64_t lingered_bytes_ = 0;
  std::atomic<Handover> handover_{Handover::kInHandle};

  // Shared with the sweeper.
  std::atomic<Phase> phase_{Phase::kIdle};
  std::atomic<int64_t> deadline_ns_{INT64_MAX};
  std::atomic<bool> timed_out_{false};
  // kHandling: from when on it looks for the client. 0: it has not seen the request yet; INT64_MAX: never, as a next
  // request has come already, or an upload looks.
  std::atomic<int64_t> look_from_ns_{INT64_MAX};
  std::mutex close_mutex_;  // held while the socket is closed or shut down, and while operations on it begin
  bool closed_ = false;

  // Bodies that are streamed. `upload_` and `uploaded_` are the upload's, `body_pipe_` and those below it the
  // response's; `exchange_mutex_` guards the others.
  std::optional<boost::asio::posix::stream_descriptor> upload_;
  size_t uploaded_ = 0;  // of request_.body
  std::atomic<int64_t> upload_deadline_ns_{INT64_MAX};
  std::optional<boost::asio::posix::stream_descriptor> body_pipe_;
  std::optional<uint64_t> body_left_;  // of an announced length
  bool body_chunked_ = false;
  bool unfinished_chunk_ = false;  // its line end goes before what comes next
  std::mutex exchange_mutex_;
  bool uploading_ = false;
  bool responded_ = false;                // the response has been sent, while the upload goes on
  std::optional<Response> upload_error_;  // to be answered in the place of what comes
  UniqueFd body_writer_;
  bool body_complete_ = false;
  std::function<void()> gone_;

  // The event stream, guarded by its mutex.
  std::mutex stream_mutex_;
  std::string stream_unsent_;
  bool stream_waiting_ = false;   // for the socket to take more
  bool stream_finished_ = false;  // nothing comes behind stream_unsent_
  bool stream_dead_ = false;
};

}  // namespace spore::gateway
