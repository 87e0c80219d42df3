%% SPDX-License-Identifier: Apache-2.0
%% @doc Subprocesses beside ports, and adopted sockets beside gen_tcp.
%%
%% Start to exit of `true', one at a time, without its output (a port's program has the VM's), beside what a bare
%% posix_spawn of it takes; while all schedulers work; then 100 at once, and run/1 beside os:cmd/1; a line to `cat' and
%% back; 1 GiB through `cat', written by one process and received by another on both sides; TCP echo, one byte back and
%% forth.
-module(bench_subprocess).

-export([benches/1]).

-define(CHILDREN, 1000).
-define(AT_ONCE, 100).
-define(LINES, 5000).
-define(ROUND_TRIPS, 5000).
-define(BYTES, 1073741824).
-define(CHUNK, 1048576).

-spec benches(tokamak_bench:options()) -> [tokamak_bench:bench()].
benches(Options) ->
    %% The spawner's descriptors are not the first child's.
    {ok, _} = tokamak_subprocess:run(["true"]),
    [
        fun() -> start_to_exit(Options) end,
        fun() -> beside_work(Options) end,
        fun() -> at_once(Options) end,
        fun() -> output(Options) end,
        fun() -> lines(Options) end,
        fun() -> through_cat(Options) end,
        fun() -> memory(Options) end,
        fun() -> echo(Options) end
    ].

%%% Start to exit

start_to_exit(Options) ->
    Children = bench_measure:scaled(?CHILDREN, Options),
    True = program(),
    Bare = fun() -> bench_measure:timed(Children, fun() -> bare(True, Children) end) end,
    Measured = bench_measure:compare(one_by_one(Children) ++ [{bare, Bare}], Options),
    [
        start_row("subprocess: start to exit", Measured, subprocess, #{must => 1.3, aim => 1.6}),
        start_row("posix_spawn to waitpid, with nothing around it", Measured, bare, #{})
    ].

%% As many processes of the VM as there are schedulers keep all of them busy meanwhile.
beside_work(Options) ->
    Children = bench_measure:scaled(?CHILDREN, Options) div 4,
    Busy = [spawn_link(fun work/0) || _ <- lists:seq(1, erlang:system_info(schedulers_online))],
    Measured = bench_measure:compare(one_by_one(Children), Options),
    lists:foreach(fun(Pid) -> unlink(Pid), exit(Pid, kill) end, Busy),
    [start_row("subprocess: start to exit, schedulers busy", Measured, subprocess, #{})].

%% Both sides, one child after the other.
one_by_one(Children) ->
    True = program(),
    [
        {Side, fun() -> bench_measure:timed(Children, fun() -> repeat(Children, fun() -> Child(True) end) end) end}
     || {Side, Child} <- [{subprocess, fun subprocess/1}, {port, fun port/1}]
    ].

program() ->
    os:find_executable("true").

start_row(Name, Measured, Subject, Marks) ->
    bench_report:row(Marks#{
        name => Name,
        kind => wall_cost,
        unit => "start",
        subject => maps:get(Subject, Measured),
        baseline_name => "open_port spawn_executable",
        baseline => maps:get(port, Measured)
    }).

work() ->
    _ = lists:sum(lists:seq(1, 1000)),
    work().

at_once(Options) ->
    Children = bench_measure:scaled(?CHILDREN, Options),
    True = program(),
    Share = max(1, Children div ?AT_ONCE),
    Total = Share * ?AT_ONCE,
    Side = fun(Child) -> fun() -> bench_measure:timed(Total, fun() -> side_by_side(Share, fun() -> Child(True) end) end) end end,
    Measured = bench_measure:compare([{subprocess, Side(fun subprocess/1)}, {port, Side(fun port/1)}], Options),
    [
        bench_report:row(#{
            name => "subprocess: start to exit, 100 at once",
            kind => rate,
            unit => "start",
            subject => maps:get(subprocess, Measured),
            baseline_name => "open_port, 100 at once",
            baseline => maps:get(port, Measured)
        })
    ].

side_by_side(Share, Child) ->
    Self = self(),
    Workers = [spawn_link(fun() -> Self ! {self(), repeat(Share, Child)} end) || _ <- lists:seq(1, ?AT_ONCE)],
    lists:sum([receive {Worker, Count} -> Count end || Worker <- Workers]).

repeat(Times, Child) ->
    lists:sum([Child() || _ <- lists:seq(1, Times)]).

subprocess(Program) ->
    {ok, P} = tokamak_subprocess:start([Program]),
    {exit, 0} = tokamak_subprocess:recv(P, infinity),
    1.

port(Program) ->
    Port = open_port({spawn_executable, Program}, [exit_status, binary]),
    receive {Port, {exit_status, 0}} -> 1 end.

bare(Program, Count) ->
    ok = tokamak_bench_nif:posix_spawn(list_to_binary(Program), Count),
    Count.

output(Options) ->
    Children = bench_measure:scaled(?CHILDREN, Options),
    Run = fun() -> {ok, #{stdout := <<"x\n">>}} = tokamak_subprocess:run(["/bin/sh", "-c", "echo x"]), 1 end,
    Cmd = fun() -> "x\n" = os:cmd("echo x"), 1 end,
    Measured = bench_measure:compare([
        {run, fun() -> bench_measure:timed(Children, fun() -> repeat(Children, Run) end) end},
        {cmd, fun() -> bench_measure:timed(Children, fun() -> repeat(Children, Cmd) end) end}
    ], Options),
    [
        bench_report:row(#{
            name => "subprocess: run a shell's echo",
            kind => wall_cost,
            unit => "start",
            subject => maps:get(run, Measured),
            baseline_name => "os:cmd",
            baseline => maps:get(cmd, Measured)
        })
    ].

%%% Lines through cat

lines(Options) ->
    Lines = bench_measure:scaled(?LINES, Options),
    Measured = bench_measure:compare([
        {recv, fun() -> subprocess_lines(Lines, fun receive_line/2) end},
        {active, fun() -> subprocess_lines(Lines, fun active_line/2) end},
        {port, fun() -> port_lines(Lines) end}
    ], Options),
    [
        line_row(Measured, recv, "subprocess: a line through cat, recv"),
        line_row(Measured, active, "subprocess: a line through cat, message")
    ].

line_row(Measured, Key, Name) ->
    bench_report:row(#{
        name => Name,
        kind => latency,
        unit => "line",
        subject => maps:get(Key, Measured),
        baseline_name => "port",
        baseline => maps:get(port, Measured)
    }).

subprocess_lines(Lines, Receive) ->
    {ok, P} = tokamak_subprocess:start(["cat"]),
    Sample = bench_measure:turns(Lines, fun() ->
        ok = tokamak_subprocess:write(P, <<"a line\n">>),
        <<"a line\n">> = Receive(P, Lines)
    end),
    ok = tokamak_subprocess:stop(P),
    Sample.

receive_line(P, _) ->
    {ok, {stdout, Line}} = tokamak_subprocess:recv(P),
    Line.

active_line(P, _) ->
    ok = tokamak_subprocess:active(P, once),
    receive {tokamak, P, {stdout, Line}} -> Line end.

port_lines(Lines) ->
    Port = open_port({spawn_executable, os:find_executable("cat")}, [binary]),
    Sample = bench_measure:turns(Lines, fun() ->
        true = port_command(Port, <<"a line\n">>),
        receive {Port, {data, <<"a line\n">>}} -> ok end
    end),
    true = port_close(Port),
    Sample.

%%% 1 GiB through cat

through_cat(Options) ->
    {Chunk, Chunks} = chunks(Options),
    Bytes = Chunks * ?CHUNK,
    Measured = bench_measure:compare([
        {recv, fun() -> bench_measure:timed(Bytes, fun() -> subprocess_bytes(Chunk, Chunks) end) end},
        {port, fun() -> bench_measure:timed(Bytes, fun() -> port_bytes(Chunk, Chunks) end) end}
    ], Options, 0),
    [
        bench_report:row(#{
            name => "subprocess: bytes through cat",
            kind => rate,
            unit => "byte",
            subject => maps:get(recv, Measured),
            baseline_name => "port",
            baseline => maps:get(port, Measured),
            must => 1.5,
            aim => 2.0
        })
    ].

chunks(Options) ->
    {binary:copy(<<0>>, ?CHUNK), bench_measure:scaled(?BYTES div ?CHUNK, Options)}.

memory(Options) ->
    {Chunk, Chunks} = chunks(Options),
    [
        bench_memory:over_time(io_lib:format("~b MiB through cat", [Chunks]), [
            {"subprocess", fun() -> subprocess_bytes(Chunk, Chunks) end},
            {"port", fun() -> port_bytes(Chunk, Chunks) end}
        ])
    ].

subprocess_bytes(Chunk, Chunks) ->
    {ok, P} = tokamak_subprocess:start(["cat"]),
    _ = spawn_link(fun() ->
        [ok = tokamak_subprocess:write(P, Chunk, infinity) || _ <- lists:seq(1, Chunks)],
        ok = tokamak_subprocess:close_stdin(P)
    end),
    receive_bytes(P, 0).

receive_bytes(P, Bytes) ->
    case tokamak_subprocess:recv(P, infinity) of
        {ok, {stdout, Bin}} -> receive_bytes(P, Bytes + byte_size(Bin));
        {exit, 0} -> Bytes
    end.

port_bytes(Chunk, Chunks) ->
    Port = open_port({spawn_executable, os:find_executable("cat")}, [binary]),
    _ = spawn_link(fun() -> [true = port_command(Port, Chunk) || _ <- lists:seq(1, Chunks)] end),
    Bytes = port_receive(Port, byte_size(Chunk) * Chunks, 0),
    true = port_close(Port),
    Bytes.

port_receive(_Port, All, All) -> All;
port_receive(Port, All, Bytes) ->
    receive {Port, {data, Bin}} -> port_receive(Port, All, Bytes + byte_size(Bin)) end.

%%% TCP echo

echo(Options) ->
    RoundTrips = bench_measure:scaled(?ROUND_TRIPS, Options),
    Measured = bench_measure:compare([
        {poll, fun() -> echoed(RoundTrips, fun adopted_poll/1) end},
        {handler, fun() -> echoed(RoundTrips, fun adopted_handler/1) end},
        {plain, fun() -> echoed(RoundTrips, fun plain/1) end}
    ], Options),
    [
        echo_row(Measured, poll, "adopted TCP echo, polled"),
        echo_row(Measured, handler, "adopted TCP echo, handler")
    ].

echo_row(Measured, Key, Name) ->
    bench_report:row(#{
        name => Name,
        kind => latency,
        unit => "round trip",
        subject => maps:get(Key, Measured),
        baseline_name => "gen_tcp, active",
        baseline => maps:get(plain, Measured)
    }).

echoed(RoundTrips, Serve) ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {nodelay, true}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listener),
    Server = spawn_link(fun() ->
        {ok, Socket} = gen_tcp:accept(Listener),
        Serve(Socket)
    end),
    {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}, {nodelay, true}]),
    Sample = bench_measure:turns(RoundTrips, fun() ->
        ok = gen_tcp:send(Client, <<"x">>),
        {ok, <<"x">>} = gen_tcp:recv(Client, 1)
    end),
    Monitor = monitor(process, Server),
    ok = gen_tcp:close(Client),
    receive {'DOWN', Monitor, process, Server, _} -> ok end,
    ok = gen_tcp:close(Listener),
    Sample.

plain(Socket) ->
    ok = inet:setopts(Socket, [{active, true}]),
    plain_loop(Socket).

plain_loop(Socket) ->
    receive
        {tcp, Socket, Data} ->
            ok = gen_tcp:send(Socket, Data),
            plain_loop(Socket);
        {tcp_closed, Socket} ->
            ok
    end.

adopted_poll(Socket) ->
    {ok, Loop} = tokamak_loop:new(),
    ok = tokamak_loop:adopt(Loop, Socket, 1),
    polled(Loop, Socket).

polled(Loop, Socket) ->
    case [ok || Event <- tokamak_loop:poll(Loop, infinity), answer(Event, Socket) =:= closed] of
        [] -> polled(Loop, Socket);
        [ok] -> tokamak_loop:destroy(Loop)
    end.

answer({1, socket_data, Data}, Socket) -> gen_tcp:send(Socket, Data);
answer({1, socket_closed, _}, _Socket) -> closed.

adopted_handler(Socket) ->
    {ok, Loop} = tokamak_loop:new(),
    Ref = tokamak_loop:register(Loop, 1, self()),
    ok = tokamak_loop:adopt(Loop, Socket, 1),
    handled(Loop, Ref, Socket).

handled(Loop, Ref, Socket) ->
    receive
        {tokamak, Ref, {event, Id, Type, Data}} ->
            case answer({Id, Type, Data}, Socket) of
                ok -> handled(Loop, Ref, Socket);
                closed -> tokamak_loop:destroy(Loop)
            end
    end.
