%% SPDX-License-Identifier: Apache-2.0
%% @doc Stubs of the native functions, nothing else.
%%
%% {@link tokamak_nif_loader} refuses a library of another version before it is loaded. Arguments are
%% checked by the modules of the public API; where a native function finds a wrong one it returns
%% `badarg', so that its caller can say which.
%% @private
-module(tokamak_nif).

-export([abi_version/0, start/2, stop/0, counts/0, table/0]).
-export([id_next/0, id_reserve/1]).
-export([
    fd_open/2,
    fd_pipe/0,
    fd_from_integer/1,
    fd_read/2,
    fd_read_file/2,
    fd_write/2,
    fd_write_file/2,
    fd_read_and_reselect/2,
    fd_reselect/2,
    fd_close/1,
    fd_close_file/1,
    fd_reap/0,
    fd_controlling_process/2
]).
-export([
    loop_open/4,
    loop_close/1,
    loop_owner/1,
    loop_drain/3,
    loop_poll/2,
    loop_stop_waiting/1,
    loop_dispatch/1,
    loop_dispatched/2,
    loop_give_back/3,
    loop_register/4,
    loop_unregister/2,
    loop_watch/4,
    loop_unwatch/3,
    loop_select_here/1,
    loop_selected/2,
    loop_post/4,
    loop_deliver/5,
    loop_info/1,
    loop_list/0,
    loop_totals/0,
    timer_start/3,
    timer_cancel/2
]).
-export([os_variable/1]).
-export([
    subprocess_start/4,
    subprocess_recv/2,
    subprocess_stop_waiting/1,
    subprocess_active/3,
    subprocess_write/3,
    subprocess_stop_writing/1,
    subprocess_close_stdin/1,
    subprocess_signal/2,
    subprocess_is_signal/1,
    subprocess_stop/1,
    subprocess_abandon/1,
    subprocess_os_pid/1,
    subprocess_info/1,
    subprocess_list/0,
    subprocess_totals/0,
    subprocess_stop_all/1,
    subprocess_spawner/0
]).

-export([progress_report/3, progress_subscribe/2, progress_unsubscribe/1, progress_stats/0]).

-on_load(load/0).

-export_type([fd/0, loop/0, subprocess/0]).
-type fd() :: reference().
-type loop() :: reference().
-type subprocess() :: reference().
-type subprocess_item() :: {ok, {stdout | stderr, binary()}} | {exit, 0..255 | {signal, pos_integer()}}.
-type event() :: {pos_integer(), atom(), term()}.
-type error() :: {error, atom()}.

%% Version of the interface between this module and the library. Raise it here and in
%% native/tokamak_nif/src/lib.rs together, whenever a NIF is added, removed or changed.
-define(ABI_VERSION, 8).
-define(STUB, erlang:nif_error(not_loaded)).

-include("tokamak_engine_stubs.hrl").

-spec load() -> ok | {error, term()}.
load() ->
    case tokamak_nif_loader:check(tokamak_nif, ?ABI_VERSION) of
        {ok, Path} -> tokamak_nif_loader:loaded(Path, erlang:load_nif(Path, 0), fun is_of_this_version/0);
        {error, _} = Error -> Error
    end.

is_of_this_version() ->
    abi_version() =:= ?ABI_VERSION.

%% @doc Returns the version of the interface the library was built for.
-spec abi_version() -> pos_integer().
abi_version() -> ?STUB.

%% @doc Starts the native services; the calling process closes what dead processes left selected.
-spec start(ProgressInterval :: pos_integer(), BusyPoll :: non_neg_integer()) ->
    ok | {error, {atom(), binary()}}.
start(_ProgressInterval, _BusyPoll) -> ?STUB.

%% @doc Closes all loops and stops the native services.
-spec stop() -> ok.
stop() -> ?STUB.

%% @doc Counts what the library holds.
-spec counts() -> #{atom() => non_neg_integer()}.
counts() -> ?STUB.

%% @doc The term through which other libraries fetch the C table, see include/tokamak.h.
-spec table() -> reference().
table() -> ?STUB.

-spec id_next() -> pos_integer().
id_next() -> ?STUB.

-spec id_reserve(term()) -> pos_integer() | badarg.
id_reserve(_Count) -> ?STUB.

-spec fd_open(binary(), [atom()]) -> {ok, fd()} | error() | badarg.
fd_open(_Path, _Flags) -> ?STUB.

-spec fd_pipe() -> {ok, fd(), fd()} | error().
fd_pipe() -> ?STUB.

-spec fd_from_integer(integer()) -> {ok, fd()} | error().
fd_from_integer(_Number) -> ?STUB.

-spec fd_read(term(), non_neg_integer()) -> {ok, binary()} | again | eof | error() | regular | badarg.
fd_read(_Fd, _Max) -> ?STUB.

-spec fd_read_file(term(), non_neg_integer()) -> {ok, binary()} | again | eof | error() | badarg.
fd_read_file(_Fd, _Max) -> ?STUB.

-spec fd_write(term(), binary() | [binary()]) ->
    {ok, non_neg_integer()} | again | error() | regular | badarg.
fd_write(_Fd, _Data) -> ?STUB.

-spec fd_write_file(term(), binary() | [binary()]) ->
    {ok, non_neg_integer()} | again | error() | badarg.
fd_write_file(_Fd, _Data) -> ?STUB.

-spec fd_read_and_reselect(term(), non_neg_integer()) ->
    {ok, pos_integer(), binary()} | again | eof | error() | badarg.
fd_read_and_reselect(_Fd, _Max) -> ?STUB.

-spec fd_reselect(term(), atom()) -> {ok, pos_integer()} | error() | badarg.
fd_reselect(_Fd, _Direction) -> ?STUB.

-spec fd_close(term()) -> ok | error() | not_owner | regular | badarg.
fd_close(_Fd) -> ?STUB.

-spec fd_close_file(term()) -> ok | error() | not_owner | badarg.
fd_close_file(_Fd) -> ?STUB.

-spec fd_reap() -> more | ok.
fd_reap() -> ?STUB.

-spec fd_controlling_process(term(), pid()) -> ok | error() | not_owner | badarg.
fd_controlling_process(_Fd, _Pid) -> ?STUB.

-spec loop_open(raw | supervised, native | select, pos_integer(), pos_integer()) ->
    {ok, loop()} | error().
loop_open(_Kind, _Backend, _MaxQueue, _MaxTimers) -> ?STUB.

-spec loop_close(term()) -> ok | error() | not_owner | badarg.
loop_close(_Loop) -> ?STUB.

-spec loop_owner(term()) -> {raw | supervised, pid()} | error() | badarg.
loop_owner(_Loop) -> ?STUB.

-spec loop_drain(term(), Max :: non_neg_integer(), Polls :: boolean()) ->
    {more | empty, [event()]} | error() | not_owner | badarg.
loop_drain(_Loop, _Max, _Polls) -> ?STUB.

-spec loop_poll(term(), reference() | undefined) -> [event()] | waiting | more | raw | error() | badarg.
loop_poll(_Loop, _Reference) -> ?STUB.

-spec loop_stop_waiting(term()) -> boolean() | badarg.
loop_stop_waiting(_Loop) -> ?STUB.

-spec loop_dispatch(term()) ->
    {more | empty, [{pid(), pos_integer(), tuple()} | {pid(), pos_integer(), tuple(), windowed}]}
    | error()
    | not_owner
    | badarg.
loop_dispatch(_Loop) -> ?STUB.

-spec loop_dispatched(term(), non_neg_integer()) -> ok | error() | not_owner | badarg.
loop_dispatched(_Loop, _Count) -> ?STUB.

-spec loop_give_back(term(), term(), term()) -> ok | error() | not_owner | badarg.
loop_give_back(_Loop, _CallbackId, _Count) -> ?STUB.

-spec loop_register(term(), term(), pid(), reference()) -> ok | error() | badarg.
loop_register(_Loop, _CallbackId, _Pid, _Reference) -> ?STUB.

-spec loop_unregister(term(), term()) -> ok | error() | badarg.
loop_unregister(_Loop, _CallbackId) -> ?STUB.

-spec loop_watch(term(), term(), read | write, term()) -> ok | error() | badarg.
loop_watch(_Loop, _Fd, _Direction, _CallbackId) -> ?STUB.

-spec loop_unwatch(term(), term(), read | write) -> ok | error() | badarg.
loop_unwatch(_Loop, _Fd, _Direction) -> ?STUB.

-spec loop_select_here(term()) -> ok | error() | badarg.
loop_select_here(_Loop) -> ?STUB.

-spec loop_selected(term(), read | write) -> ok | badarg.
loop_selected(_Fd, _Direction) -> ?STUB.

-spec loop_post(term(), term(), atom(), term()) -> ok | error() | badarg.
loop_post(_Loop, _CallbackId, _Type, _Data) -> ?STUB.

%% With a reference, `{tokamak, Reference, taken}' comes when the event is taken.
-spec loop_deliver(term(), term(), atom(), term(), reference() | undefined) -> ok | error() | badarg.
loop_deliver(_Loop, _CallbackId, _Type, _Data, _Reference) -> ?STUB.

-spec loop_info(term()) -> map() | error() | badarg.
loop_info(_Loop) -> ?STUB.

%% The loops that are open.
-spec loop_list() -> [loop()].
loop_list() -> ?STUB.

%% One wake in `Sample' is among the times from a wake to its drain, see `op_stats'.
-spec loop_totals() -> {#{atom() => non_neg_integer()}, Sample :: pos_integer(), tokamak_stats:times()}.
loop_totals() -> ?STUB.

-spec timer_start(term(), term(), term()) -> pos_integer() | error() | badarg.
timer_start(_Loop, _Milliseconds, _CallbackId) -> ?STUB.

-spec timer_cancel(term(), term()) -> non_neg_integer() | false | error() | badarg.
timer_cancel(_Loop, _TimerRef) -> ?STUB.

-spec progress_report(term(), term(), term()) -> ok | badarg.
progress_report(_Key, _Done, _Total) -> ?STUB.

-spec progress_subscribe([term()], non_neg_integer()) -> reference() | error().
progress_subscribe(_Key, _Interval) -> ?STUB.

-spec progress_unsubscribe(term()) -> ok | not_owner | badarg.
progress_unsubscribe(_Ref) -> ?STUB.

-spec progress_stats() -> map().
progress_stats() -> ?STUB.

-spec os_variable(term()) -> binary() | false | badarg.
os_variable(_Name) -> ?STUB.

%% After a subprocess, `{tokamak, Reference, started | {error, Reason}}' comes.
-spec subprocess_start(binary(), tuple(), undefined | {term(), term()}, reference()) ->
    subprocess() | error() | badarg.
subprocess_start(_Program, _Request, _Loop, _Reference) -> ?STUB.

-spec subprocess_recv(term(), reference() | undefined) ->
    subprocess_item() | waiting | error() | not_owner | badarg.
subprocess_recv(_Subprocess, _Reference) -> ?STUB.

-spec subprocess_stop_waiting(term()) -> boolean() | not_owner | badarg.
subprocess_stop_waiting(_Subprocess) -> ?STUB.

-spec subprocess_active(term(), non_neg_integer(), boolean()) -> ok | error() | not_owner | badarg.
subprocess_active(_Subprocess, _More, _Once) -> ?STUB.

-spec subprocess_write(term(), binary() | [binary()], reference() | undefined) ->
    {ok, non_neg_integer()} | full | error() | badarg.
subprocess_write(_Subprocess, _Data, _Reference) -> ?STUB.

-spec subprocess_stop_writing(term()) -> boolean() | badarg.
subprocess_stop_writing(_Subprocess) -> ?STUB.

-spec subprocess_close_stdin(term()) -> ok | error() | badarg.
subprocess_close_stdin(_Subprocess) -> ?STUB.

-spec subprocess_signal(term(), term()) -> ok | error() | badarg.
subprocess_signal(_Subprocess, _Signal) -> ?STUB.

-spec subprocess_is_signal(term()) -> boolean().
subprocess_is_signal(_Signal) -> ?STUB.

-spec subprocess_stop(term()) -> ok | error() | not_owner | badarg.
subprocess_stop(_Subprocess) -> ?STUB.

-spec subprocess_abandon(term()) -> ok | not_owner | badarg.
subprocess_abandon(_Subprocess) -> ?STUB.

-spec subprocess_os_pid(term()) -> {ok, pos_integer()} | error() | badarg.
subprocess_os_pid(_Subprocess) -> ?STUB.

-spec subprocess_info(term()) -> map() | error() | badarg.
subprocess_info(_Subprocess) -> ?STUB.

%% What {@link subprocess_info/1} gives, of all whose end was not taken.
-spec subprocess_list() -> [map()].
subprocess_list() -> ?STUB.

-spec subprocess_totals() -> #{atom() => non_neg_integer()}.
subprocess_totals() -> ?STUB.

-spec subprocess_stop_all(reference()) -> boolean().
subprocess_stop_all(_Reference) -> ?STUB.

-spec subprocess_spawner() -> {ok, pos_integer(), non_neg_integer()} | error().
subprocess_spawner() -> ?STUB.
