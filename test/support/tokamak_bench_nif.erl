%% SPDX-License-Identifier: Apache-2.0
%% @doc Stubs of the baselines and test producers in native/tokamak_bench_nif.
-module(tokamak_bench_nif).

-export([noop/0, resource_usage/0]).
-export([hand_written_call/2, dirty_echo/1]).
-export([producers_push/5, producers_send/4, producers_send_lists/5]).
-export([producers_start/1, producers_join/1]).
-export([monotonic_nanoseconds/0, stamper_push/3, stamper_send/2, stamper_next/1]).
-export([pipes_open/1, pipes_reader/1, pipes_close_reader/1, pipes_fill/2]).
-export([writer_start/1, writer_round/1]).
-export([select_open/1, select_callback_id/1, select_read/2, select_again/1]).
-export([select_read_and_again/2, select_stop/1]).

-export([graph_start/3]).
-export([posix_spawn/2]).

-on_load(load/0).

-define(STUB, erlang:nif_error(not_loaded)).

-type handle() :: reference().
-type table() :: reference().

%% The build keeps this library out of priv/, which is shipped: it is in _build/native, beside the
%% _build/PROFILE/lib/tokamak that the VM finds this application in. Elsewhere the variable says where.
-spec load() -> ok | {error, term()}.
load() ->
    Dir = os:getenv("TOKAMAK_BENCH_NIF_DIR",
                    filename:join([code:lib_dir(tokamak), "..", "..", "..", "native"])),
    erlang:load_nif(filename:join(Dir, "tokamak_bench_nif"), 0).

%% @doc Does nothing: the cost of a NIF call.
-spec noop() -> ok.
noop() -> ?STUB.

%% @doc What the operating system's process has used since its start, ended threads included: user and
%% system time in microseconds, voluntary and involuntary context switches, minor and major page faults.
-spec resource_usage() ->
    {non_neg_integer(), non_neg_integer(), non_neg_integer(), non_neg_integer(), non_neg_integer(),
     non_neg_integer()}.
resource_usage() -> ?STUB.

%% @doc Makes native threads that push events into a loop, through the C table that
%% `tokamak_nif:table/0' stands for: thread `I' of `Threads', from 0, pushes `Count' events
%% `{FirstId + I, user, 0 .. Count - 1}' in order. It waits for room in a full queue.
-spec producers_push(table(), tokamak_loop:loop(), pos_integer(), pos_integer(), non_neg_integer()) ->
    handle() | badarg.
producers_push(_Table, _Loop, _FirstId, _Threads, _Count) -> ?STUB.

%% @doc The same events, each sent as a message.
-spec producers_send(pid(), pos_integer(), pos_integer(), non_neg_integer()) -> handle().
producers_send(_To, _FirstId, _Threads, _Count) -> ?STUB.

%% @doc The same events, sent as lists of `Size'.
-spec producers_send_lists(pid(), pos_integer(), pos_integer(), non_neg_integer(), pos_integer()) ->
    handle().
producers_send_lists(_To, _FirstId, _Threads, _Count, _Size) -> ?STUB.

%% @doc Lets producers go. Those that nobody refers to any more end without having begun.
-spec producers_start(handle()) -> ok.
producers_start(_Producers) -> ?STUB.

%% @doc Waits for producers to end; `failed': some event could not be delivered.
-spec producers_join(handle()) -> ok | failed.
producers_join(_Producers) -> ?STUB.

%% @doc The clock of stamps.
-spec monotonic_nanoseconds() -> integer().
monotonic_nanoseconds() -> ?STUB.

%% @doc Makes a thread that, each time it is asked, sleeps and then pushes `{1, user, Nanoseconds}', the
%% time of the push, into a loop.
-spec stamper_push(table(), tokamak_loop:loop(), non_neg_integer()) -> handle() | badarg.
stamper_push(_Table, _Loop, _PauseMicroseconds) -> ?STUB.

%% @doc The same by a message.
-spec stamper_send(pid(), non_neg_integer()) -> handle().
stamper_send(_To, _PauseMicroseconds) -> ?STUB.

%% @doc Asks for the next stamp.
-spec stamper_next(handle()) -> ok.
stamper_next(_Stamper) -> ?STUB.

%% @doc Makes pipes that do not block.
-spec pipes_open(non_neg_integer()) -> {ok, handle()} | {error, Errno :: integer()}.
pipes_open(_Count) -> ?STUB.

%% @doc The descriptor of the first end to be read that is left.
-spec pipes_reader(handle()) -> non_neg_integer() | nil.
pipes_reader(_Pipes) -> ?STUB.

%% @doc Closes that end, after somebody has opened it anew.
-spec pipes_close_reader(handle()) -> ok.
pipes_close_reader(_Pipes) -> ?STUB.

%% @doc Writes `Count' bytes into each pipe.
-spec pipes_fill(handle(), non_neg_integer()) -> ok | failed.
pipes_fill(_Pipes, _Count) -> ?STUB.

%% @doc Makes a thread that writes one byte into each pipe whenever it is asked.
-spec writer_start(handle()) -> handle().
writer_start(_Pipes) -> ?STUB.

%% @doc Asks for one round of writing.
-spec writer_round(handle()) -> ok.
writer_round(_Writer) -> ?STUB.

%% @doc Takes the ends to be read for enif_select by hand; their callback ids count from 1.
-spec select_open(handle()) -> [handle()].
select_open(_Pipes) -> ?STUB.

-spec select_callback_id(handle()) -> pos_integer().
select_callback_id(_Reader) -> ?STUB.

-spec select_read(handle(), pos_integer()) -> {ok, binary()} | again | {error, closed}.
select_read(_Reader, _Max) -> ?STUB.

%% @doc Has the caller sent `{select, Reader, undefined, ready_input}' when there is something to read.
-spec select_again(handle()) -> ok.
select_again(_Reader) -> ?STUB.

%% @doc All three in one call.
-spec select_read_and_again(handle(), pos_integer()) ->
    {ok, pos_integer(), binary()} | again | {error, closed}.
select_read_and_again(_Reader, _Max) -> ?STUB.

-spec select_stop(handle()) -> ok.
select_stop(_Reader) -> ?STUB.

%% @doc Sends `{hand_written, Reference, {ok, Number}}' from a tokio runtime.
-spec hand_written_call(reference(), integer()) -> ok.
hand_written_call(_Reference, _Number) -> ?STUB.

%% @doc Gives its argument back, by way of a dirty scheduler.
-spec dirty_echo(integer()) -> integer().
dirty_echo(_Number) -> ?STUB.

%% @doc Runs one of the synthetic graphs of the pool's benches on native threads: `{results, [{Item, {ok,
%% Result}}]}' in batches, then `finished'.
-spec graph_start(pid(), chain | star | tree | dense, pos_integer()) -> ok.
graph_start(_To, _Shape, _Threads) -> ?STUB.

%% @doc Runs a program `Count' times, one after the other, by posix_spawn and waitpid on one thread of the VM: the
%% least that a start and an exit take on this machine. Its exit status is lost, as the VM ignores SIGCHLD.
-spec posix_spawn(binary(), pos_integer()) -> ok | {error, failed}.
posix_spawn(_Program, _Count) -> ?STUB.
