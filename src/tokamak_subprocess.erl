%% SPDX-License-Identifier: Apache-2.0
%% @doc Subprocesses that never lose an exit status, a byte or a child.
%%
%% `start/2' runs a program: no shell, the arguments as they are. Its process group ends with {@link stop/1}, with
%% its owner (the process that started it), with the application and with the VM, however that ends: TERM first,
%% then KILL after `kill_timeout'.
%%
%% Output is taken by {@link recv/2}, or comes as messages on the credit that {@link active/2} gives, or as events
%% of a loop (the option `loop'). What is not taken stays in the child's pipe, so that the child waits. There is
%% exactly one end, after all output: `{exit, Status}', where Status is what the program returned, or `{signal, N}'.
%% When a descendant still holds an output pipe 5 s after the exit, the end comes then. `{error, spawner_died}' is
%% the end when the helper program that owns the children was killed, `{error, shutdown}' when the application
%% stopped. The end is taken once; afterwards most functions give `{error, closed}'.
%%
%% The owner alone receives, sets credit and stops; any other process raises `not_owner'. Any local process may
%% write, close the input and send signals. A subprocess whose last handle is gone is stopped, unless it has credit
%% for messages or tells a loop.
%%
%% Failures are POSIX names (`eacces', `enoexec', `e2big', `epipe', ...). `enoent': the program is not there, or the
%% directory `cd', or that of a `{file, Path}'. Linux only: elsewhere `start/2' gives `{error, not_supported}'.
-module(tokamak_subprocess).

-export([run/1, run/2, start/1, start/2]).
-export([write/2, write/3, close_stdin/1]).
-export([recv/1, recv/2, active/2]).
-export([signal/2, stop/1, os_pid/1, info/1]).
-export([shut_down/0, is_subprocess/1, is_signal/1]).

-include("tokamak_error.hrl").
-include_lib("kernel/include/logger.hrl").

-export_type([subprocess/0, status/0, options/0, run_options/0, argument/0, environment/0, output/0, signal/0]).

-opaque subprocess() :: reference().
-type argument() :: binary() | string().
%% A binary is passed byte by byte, a string encoded as file names are.
-type status() :: 0..255 | {signal, pos_integer()}.
-type output() :: stream | merge | null | {file, file:name_all()}.
%% `stream': given to the owner. `merge': where the other one goes. `{file, Path}': created or emptied; a
%% relative path starts from the child's directory.
-type environment() :: [{argument(), argument() | false}] | #{argument() => argument() | false}.
-type options() :: #{
    cd => file:name_all(),
    env => environment(),
    clear_env => boolean(),
    stdin => pipe | null,
    stdout => output(),
    stderr => output(),
    kill_timeout => non_neg_integer(),
    loop => {tokamak_loop:loop(), tokamak_loop:callback_id()}
}.
%% `env' sets variables, or removes them (`false'), in the environment of the VM, which {@link os:env/0} shows and
%% children get byte by byte; with `clear_env', in nothing.
%% `kill_timeout' (2000) are the milliseconds from TERM to KILL; 0 is KILL at once.
-type run_options() :: #{
    stdin => iodata(),
    timeout => timeout(),
    cd => file:name_all(),
    env => environment(),
    clear_env => boolean(),
    stdout => output(),
    stderr => output(),
    kill_timeout => non_neg_integer()
}.
-type signal() :: atom() | 1..64.
%% A number, or a name as Erlang writes it: `sigterm', `sighup', `sigint', `sigkill', `sigusr1', ...

-define(TIMEOUT, 5000).
%% How long the end of all children may take when the application stops, in milliseconds.
-define(STOP_TIME, 60000).

%% What run/2 and start/2 both take.
-define(COMMON,
    cd => path,
    env => environment,
    clear_env => boolean,
    stdout => output,
    stderr => output,
    kill_timeout => milliseconds_u32
).
-define(OPTIONS, #{?COMMON, stdin => input, loop => loop_target}).
-define(RUN_OPTIONS, #{?COMMON, stdin => iodata, timeout => timeout}).
-define(BOTH_MERGED, #{2 => "stdout and stderr cannot both be merge"}).

%% @equiv run(Argv, #{})
-spec run([argument(), ...]) ->
    {ok, #{status := status(), stdout := binary(), stderr := binary()}} | {error, term()}.
run(Argv) ->
    run(Argv, #{}).

%% @doc Runs a program to its end and gives its status and all its output. Its input is `stdin' (iodata), or
%% `/dev/null'. After `timeout' (milliseconds, infinity) it is stopped: `{error, timeout}'. Other options are those of
%% {@link start/2}; a stream that goes elsewhere is `<<>>' here. The output is kept in memory, whatever its size.
%%
%% ```
%% {ok, #{status := 0, stdout := <<"HELLO">>}} = tokamak_subprocess:run(["tr", "a-z", "A-Z"], #{stdin => "hello"}).
%% {ok, #{status := 3, stderr := <<"no\n">>}} = tokamak_subprocess:run(["sh", "-c", "echo no >&2; exit 3"]).
%% {error, timeout} = tokamak_subprocess:run(["sleep", "60"], #{timeout => 50}).
%% {error, enoent} = tokamak_subprocess:run(["no-such-program"]).
%% '''
-spec run([argument(), ...], run_options()) ->
    {ok, #{status := status(), stdout := binary(), stderr := binary()}} | {error, term()}.
run(Argv, Options) ->
    case check(Argv, Options, ?RUN_OPTIONS) of
        ok ->
            Deadline = tokamak_deadline:new(maps:get(timeout, Options, infinity)),
            Input = maps:get(stdin, Options, none),
            case start_checked(Argv, Options#{stdin => input_kind(Input)}, Deadline) of
                {ok, P} ->
                    feed(P, Input),
                    collect(P, Deadline, [], []);
                {error, _} = Error ->
                    Error
            end;
        both_merged ->
            ?EXPLAINED([Argv, Options], ?BOTH_MERGED);
        wrong ->
            ?BADARG([Argv, Options], [argv, {options, ?RUN_OPTIONS}])
    end.

input_kind(none) -> null;
input_kind(_) -> pipe.

%% Another process writes, so that this one can read meanwhile. It ends with the subprocess.
feed(_P, none) ->
    ok;
feed(P, Input) ->
    _ = spawn(fun() ->
        _ = write(P, Input, infinity),
        close_stdin(P)
    end),
    ok.

collect(P, Deadline, Stdout, Stderr) ->
    Left = tokamak_deadline:time_left(Deadline),
    case recv(P, Left) of
        %% One that writes without an end has its time, too.
        {ok, _} when Left =:= 0 ->
            timed_out(P);
        {ok, {stdout, Data}} ->
            collect(P, Deadline, [Data | Stdout], Stderr);
        {ok, {stderr, Data}} ->
            collect(P, Deadline, Stdout, [Data | Stderr]);
        {exit, Status} ->
            {ok, #{status => Status, stdout => in_order(Stdout), stderr => in_order(Stderr)}};
        {error, timeout} ->
            timed_out(P);
        {error, _} = Error ->
            Error
    end.

timed_out(P) ->
    _ = tokamak_nif:subprocess_abandon(P),
    {error, timeout}.

in_order(Chunks) -> iolist_to_binary(lists:reverse(Chunks)).

%% @equiv start(Argv, #{})
-spec start([argument(), ...]) -> {ok, subprocess()} | {error, term()}.
start(Argv) ->
    start(Argv, #{}).

%% @doc Starts a program; a name without a slash is looked up in the child's PATH. Returns when it runs, or why it
%% does not: that takes a millisecond or so, and has no time-out.
%%
%% With `loop => {Loop, CallbackId}' its output and exit are events of that loop: `subprocess_stdout' and
%% `subprocess_stderr' with the bytes, last one `subprocess_exit' with the status, or `{error, Reason}'. At most 16
%% of them wait there; the subprocess is stopped when the loop ends.
%%
%% ```
%% {ok, P} = tokamak_subprocess:start(["sh", "-c", "echo $WORD"], #{env => [{"WORD", "hello"}], stderr => merge}).
%% {ok, {stdout, <<"hello\n">>}} = tokamak_subprocess:recv(P).
%% {exit, 0} = tokamak_subprocess:recv(P).
%%
%% {ok, Loop} = tokamak_loop:new().
%% {ok, _} = tokamak_subprocess:start(["true"], #{loop => {Loop, 4}}).
%% [{4, subprocess_exit, 0}] = tokamak_loop:poll(Loop, 5000).
%% '''
-spec start([argument(), ...], options()) -> {ok, subprocess()} | {error, term()}.
start(Argv, Options) ->
    case check(Argv, Options, ?OPTIONS) of
        ok -> start_checked(Argv, Options, tokamak_deadline:new(infinity));
        both_merged -> ?EXPLAINED([Argv, Options], ?BOTH_MERGED);
        wrong -> ?BADARG([Argv, Options], [argv, {options, ?OPTIONS}])
    end.

check(Argv, Options, Kinds) ->
    case tokamak_subprocess_request:arguments(Argv) =/= error andalso tokamak_error:options(Options, Kinds) of
        ok ->
            case Options of
                #{stdout := merge, stderr := merge} -> both_merged;
                _ -> ok
            end;
        _ ->
            wrong
    end.

start_checked(Argv, Options, Deadline) ->
    case os:type() of
        {unix, linux} -> start_native(Argv, Options, Deadline);
        _ -> {error, not_supported}
    end.

start_native(Argv, Options, Deadline) ->
    Request = tokamak_subprocess_request:make(Argv, Options),
    Program = tokamak_subprocess_request:program(),
    Loop = maps:get(loop, Options, undefined),
    Ref = make_ref(),
    case tokamak_nif:subprocess_start(Program, Request, Loop, Ref) of
        P when is_reference(P) ->
            receive
                {tokamak, Ref, started} -> {ok, P};
                {tokamak, Ref, {error, _} = Error} -> Error
            after tokamak_deadline:time_left(Deadline) ->
                Result = timed_out(P),
                %% Told before or by this end, and once.
                receive
                    {tokamak, Ref, _} -> Result
                end
            end;
        {error, _} = Error ->
            Error;
        badarg ->
            ?BADARG([Argv, Options], [argv, {options, ?OPTIONS}])
    end.

%% @equiv write(P, Data, 5000)
-spec write(subprocess(), iodata()) -> ok | {error, term()}.
write(P, Data) ->
    write(P, Data, ?TIMEOUT).

%% @doc Writes to the child's input, waiting up to `Timeout' milliseconds while its pipe is full. `{error, timeout}':
%% a part may have been written. `epipe': the child reads no more. `closed': its input was closed, or is not a pipe.
%% A process that also receives from a child that answers while it reads should write little at a time, or have
%% another process write: both pipes can be full.
%%
%% ```
%% {ok, P} = tokamak_subprocess:start(["cat"]).
%% ok = tokamak_subprocess:write(P, ["hel", <<"lo">>], 1000).
%% {ok, {stdout, <<"hello">>}} = tokamak_subprocess:recv(P).
%% ok = tokamak_subprocess:stop(P).
%% '''
-spec write(subprocess(), iodata(), timeout()) -> ok | {error, timeout | closed | file:posix()}.
write(P, Data, Timeout) when ?IS_TIMEOUT(Timeout) ->
    case native_data(Data) of
        {ok, Binaries} ->
            case is_subprocess(P) of
                true -> write_all(P, Binaries, Timeout);
                false -> ?BADARG([P, Data, Timeout], [subprocess, iodata, timeout])
            end;
        error ->
            ?BADARG([P, Data, Timeout], [subprocess, iodata, timeout])
    end;
write(P, Data, Timeout) ->
    ?BADARG([P, Data, Timeout], [subprocess, iodata, timeout]).

native_data(Data) ->
    try
        {ok, [Binary || Binary <- erlang:iolist_to_iovec(Data), Binary =/= <<>>]}
    catch
        error:badarg -> error
    end.

write_all(P, [], _Timeout) ->
    case tokamak_nif:subprocess_write(P, [], undefined) of
        {error, _} = Error -> Error;
        _ -> ok
    end;
write_all(P, Binaries, Timeout) ->
    write_rest(P, Binaries, make_ref(), tokamak_deadline:new(Timeout)).

write_rest(_P, [], _Ref, _Deadline) ->
    ok;
write_rest(P, Binaries, Ref, Deadline) ->
    case tokamak_nif:subprocess_write(P, Binaries, Ref) of
        {ok, Written} -> write_rest(P, without(Written, Binaries), Ref, Deadline);
        full -> wait_for_room(P, Binaries, Ref, Deadline);
        {error, _} = Error -> Error
    end.

wait_for_room(P, Binaries, Ref, Deadline) ->
    receive
        {tokamak, Ref, ready} -> write_rest(P, Binaries, Ref, Deadline)
    after tokamak_deadline:time_left(Deadline) ->
        case tokamak_nif:subprocess_stop_writing(P) of
            true ->
                {error, timeout};
            false ->
                %% The wake was sent before the wait ended, so it comes.
                receive
                    {tokamak, Ref, ready} -> last_write(P, Binaries)
                end
        end
    end.

last_write(P, Binaries) ->
    case tokamak_nif:subprocess_write(P, Binaries, undefined) of
        {error, _} = Error ->
            Error;
        {ok, Written} ->
            case without(Written, Binaries) of
                [] -> ok;
                _ -> {error, timeout}
            end;
        full ->
            {error, timeout}
    end.

without(0, Binaries) -> Binaries;
without(N, [Binary | Rest]) when N >= byte_size(Binary) -> without(N - byte_size(Binary), Rest);
without(N, [Binary | Rest]) -> [binary_part(Binary, N, byte_size(Binary) - N) | Rest].

%% @doc Ends the child's input; what was written is read before the end. Does not wait.
%%
%% ```
%% {ok, P} = tokamak_subprocess:start(["wc", "-c"]).
%% ok = tokamak_subprocess:write(P, "hello").
%% ok = tokamak_subprocess:close_stdin(P).
%% {ok, {stdout, <<"5\n">>}} = tokamak_subprocess:recv(P).
%% {exit, 0} = tokamak_subprocess:recv(P).
%% '''
-spec close_stdin(subprocess()) -> ok | {error, closed}.
close_stdin(P) ->
    case tokamak_nif:subprocess_close_stdin(P) of
        badarg -> ?BADARG([P], [subprocess]);
        Result -> Result
    end.

%% @equiv recv(P, 5000)
-spec recv(subprocess()) -> {ok, {stdout | stderr, binary()}} | {exit, status()} | {error, term()}.
recv(P) ->
    recv(P, ?TIMEOUT).

%% @doc Takes what comes next, at most 256 KiB, waiting up to `Timeout' milliseconds; a time-out loses nothing.
%% While a child answers within some 0.2 ms, a call looks for its answer for up to `busy_poll' microseconds before it
%% waits (docs/configuration.md); it keeps the scheduler for that time.
%% `{exit, Status}' comes once, last. `active': there is credit for messages. `not_supported': it tells a loop.
%%
%% ```
%% {ok, P} = tokamak_subprocess:start(["cat"]).
%% {error, timeout} = tokamak_subprocess:recv(P, 10).
%% ok = tokamak_subprocess:close_stdin(P).
%% {exit, 0} = tokamak_subprocess:recv(P).
%% {error, closed} = tokamak_subprocess:recv(P).
%% '''
-spec recv(subprocess(), timeout()) ->
    {ok, {stdout | stderr, binary()}}
    | {exit, status()}
    | {error, timeout | closed | active | spawner_died | shutdown}.
recv(P, Timeout) when ?IS_TIMEOUT(Timeout) ->
    Ref = case Timeout of
        0 -> undefined;
        _ -> make_ref()
    end,
    case tokamak_nif:subprocess_recv(P, Ref) of
        waiting when Timeout =:= 0 -> {error, timeout};
        waiting -> wait(P, Ref, Timeout);
        not_owner -> ?NOT_OWNER([P, Timeout]);
        badarg -> ?BADARG([P, Timeout], [subprocess, timeout]);
        Result -> Result
    end;
recv(P, Timeout) ->
    ?BADARG([P, Timeout], [subprocess, timeout]).

wait(P, Ref, Timeout) ->
    receive
        {tokamak, Ref, Result} -> Result
    after Timeout ->
        case tokamak_nif:subprocess_stop_waiting(P) of
            true ->
                {error, timeout};
            false ->
                %% It was sent before the wait ended, so it comes.
                receive
                    {tokamak, Ref, Result} -> Result
                end
        end
    end.

%% @doc Has output come as messages: `{tokamak, P, {stdout, Bin}}', `{tokamak, P, {stderr, Bin}}', and last
%% `{tokamak, P, {exit, Status}}' (or `{tokamak, P, {error, Reason}}').
%%
%% A number adds to the credit, `once' makes it 1, `false' (which is the default) takes it back: then no message
%% comes any more, but some may be in the mailbox. Each message, the last one too, takes 1 of the credit; without
%% credit {@link recv/2} works. A message holds 256 KiB at most; what there is no credit for stays in the pipe.
%%
%% ```
%% {ok, P} = tokamak_subprocess:start(["echo", "hello"]).
%% ok = tokamak_subprocess:active(P, 2).
%% <<"hello\n">> = receive {tokamak, P, {stdout, Data}} -> Data end.
%% 0 = receive {tokamak, P, {exit, Status}} -> Status end.
%% '''
-spec active(subprocess(), pos_integer() | once | false) -> ok | {error, closed | not_supported}.
active(P, N) ->
    case credit(N) of
        {More, Once} ->
            case tokamak_nif:subprocess_active(P, More, Once) of
                not_owner -> ?NOT_OWNER([P, N]);
                badarg -> ?BADARG([P, N], [subprocess, credit]);
                Result -> Result
            end;
        error ->
            ?BADARG([P, N], [subprocess, credit])
    end.

credit(once) -> {1, true};
credit(false) -> {0, false};
credit(N) when is_integer(N), N >= 1, N =< 16#7FFFFFFF -> {N, false};
credit(_) -> error.

%% @doc Sends a signal to the child itself. (Its descendants: {@link stop/1}.) `closed': it has exited. Does not wait
%% for what the signal does.
%%
%% ```
%% {ok, P} = tokamak_subprocess:start(["sleep", "60"]).
%% ok = tokamak_subprocess:signal(P, sigint).
%% {exit, {signal, 2}} = tokamak_subprocess:recv(P).
%% '''
-spec signal(subprocess(), signal()) -> ok | {error, closed | term()}.
signal(P, Signal) ->
    case tokamak_nif:subprocess_signal(P, Signal) of
        badarg -> ?BADARG([P, Signal], [subprocess, signal]);
        Result -> Result
    end.

%% @doc Ends the child and all its descendants: TERM (and CONT) to the process group and to what left it, and KILL to
%% what is left after `kill_timeout'. Does not wait: output and exit come as ever. Works after the exit, too, while
%% descendants run.
%%
%% ```
%% {ok, P} = tokamak_subprocess:start(["sleep", "60"], #{kill_timeout => 500}).
%% ok = tokamak_subprocess:stop(P).
%% {exit, {signal, 15}} = tokamak_subprocess:recv(P).
%% '''
-spec stop(subprocess()) -> ok | {error, closed | term()}.
stop(P) ->
    case tokamak_nif:subprocess_stop(P) of
        not_owner -> ?NOT_OWNER([P]);
        badarg -> ?BADARG([P], [subprocess]);
        Result -> Result
    end.

%% @doc The process id, which is also that of the process group, until the child has exited.
%%
%% ```
%% {ok, P} = tokamak_subprocess:start(["sh", "-c", "echo $$; sleep 60"]).
%% {ok, OsPid} = tokamak_subprocess:os_pid(P).
%% {ok, {stdout, Printed}} = tokamak_subprocess:recv(P).
%% OsPid = binary_to_integer(string:trim(Printed)).
%% '''
-spec os_pid(subprocess()) -> {ok, pos_integer()} | {error, closed}.
os_pid(P) ->
    case tokamak_nif:subprocess_os_pid(P) of
        badarg -> ?BADARG([P], [subprocess]);
        Result -> Result
    end.

%% @doc Shows a subprocess: `state' (`running', `exited': its end was not yet taken), `owner', the `credit' for
%% messages, the bytes `written' to it and taken of `stdout' and `stderr', and `busy_polls': how often {@link recv/2} looked
%% a moment longer before it waited, `busy_polls_in_vain' of them without finding anything.
%%
%% ```
%% {ok, P} = tokamak_subprocess:start(["cat"]).
%% ok = tokamak_subprocess:write(P, "hello").
%% #{state := running, written := 5, credit := 0} = tokamak_subprocess:info(P).
%% '''
-spec info(subprocess()) -> map() | {error, closed}.
info(P) ->
    case tokamak_nif:subprocess_info(P) of
        badarg -> ?BADARG([P], [subprocess]);
        Result -> Result
    end.

%% @private Ends the spawner and all children, and waits for that. Another start makes a new one.
-spec shut_down() -> ok.
shut_down() ->
    case os:type() of
        {unix, linux} -> shut_down(make_ref());
        _ -> ok
    end.

shut_down(Ref) ->
    case tokamak_nif:subprocess_stop_all(Ref) of
        true ->
            receive
                {tokamak, Ref, stopped} -> ok
            after ?STOP_TIME ->
                ?LOG_WARNING("tokamak: subprocesses did not end in time", [], #{domain => [tokamak]})
            end;
        false ->
            ok
    end.

%% @private
-spec is_subprocess(term()) -> boolean().
is_subprocess(P) ->
    is_reference(P) andalso tokamak_nif:subprocess_info(P) =/= badarg.

%% @private
-spec is_signal(term()) -> boolean().
is_signal(Signal) ->
    %% A wrong signal is found before a wrong handle.
    is_integer(Signal) andalso Signal >= 1 andalso Signal =< 64 orelse
        is_atom(Signal) andalso tokamak_nif:subprocess_is_signal(Signal).
