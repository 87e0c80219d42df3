%% SPDX-License-Identifier: Apache-2.0
%% @doc Calls and streams on other nodes, for {@link tokamak}.
%%
%% Each has a proxy process on the serving node, which makes the native call there, watches its caller, and
%% sends the end to an alias of the caller's. Node and proxy are watched from here: a node that goes away is
%% `{error, nodedown}' at once; a caller that goes away takes its proxy, and so its native call, with it.
%% @private
-module(tokamak_remote).

-export([node_for/2]).
-export([create_table/0, shut_down/0, call/4, async/4, helper_of/1, stage/1, await/3, stop/2]).
-export([stream/5, is_stream/1, next/2, close/1]).
-export([serve_call/4, serve_stream/5]).

-export_type([stream/0]).
-type stream() :: {tokamak_remote_stream, Relay :: pid(), Owner :: pid()}.

-define(TABLE, ?MODULE).
%% When a relay asks again, in milliseconds, where the way to the node is blocked.
-define(ASK_AGAIN, 10).

%% @doc The node that serves an operation: this one, when it is meant or preferred.
-spec node_for(node() | any, module()) -> node() | {error, nodedown | shutdown}.
node_for(any, Engine) ->
    case tokamak_call:ensure(Engine, any) of
        ok -> node();
        {error, shutdown} = Error -> Error;
        {error, _} -> any_other(pg:get_members(tokamak, {engine, Engine}))
    end;
node_for(Node, _Engine) ->
    Node.

any_other([]) ->
    {error, nodedown};
any_other(Members) ->
    node(lists:nth(rand:uniform(length(Members)), Members)).

%% @doc Calls an operation on a node.
-spec call(node(), tokamak:op(), [term()], timeout()) -> tokamak:result().
call(Node, Op, Args, Timeout) ->
    {Alias, Worker, Monitor} = start_call(Node, Op, Args),
    End =
        receive
            {tokamak, Alias, Answer} -> Answer;
            {'DOWN', Monitor, process, Worker, Reason} -> last_word(Alias, lost(Reason))
        after Timeout ->
            exit(Worker, kill),
            last_word(Alias, {error, timeout})
        end,
    demonitor(Monitor, [flush]),
    End.

last_word(Alias, Otherwise) ->
    _ = unalias(Alias),
    receive
        {tokamak, Alias, Word} -> Word
    after 0 -> Otherwise
    end.

%% A worker makes the remote call and answers to an alias. For whatever goes to a node that hangs can wait as long as
%% that does: so it is never the caller who waits.
start_call(Node, Op, Args) ->
    Caller = self(),
    Alias = alias([reply]),
    {Worker, Monitor} = spawn_monitor(fun() -> make_call(Caller, Alias, Node, [Op, Args]) end),
    {Alias, Worker, Monitor}.

make_call(Caller, Answering, Node, OpArgs) ->
    {Answer, _Proxy} = ask_proxy(Caller, Node, serve_call, OpArgs),
    answer(Answering, Answer).

%% The first answer of a new proxy, for a caller; and the proxy, if it began, with what it is waited with. One whose
%% caller is gone when it begins ends at once, so this needs no undoing.
ask_proxy(Caller, Node, Function, Args) ->
    CallerMonitor = monitor(process, Caller),
    Alias = alias(),
    Request = spawn_request(Node, ?MODULE, Function, [self(), Alias | Args], [monitor]),
    receive
        {spawn_reply, Request, ok, Proxy} ->
            {await_answer(Alias, Request, CallerMonitor), {Proxy, Request, Alias, CallerMonitor}};
        {spawn_reply, Request, error, Reason} ->
            {lost(Reason), none};
        {'DOWN', CallerMonitor, process, Caller, _Reason} ->
            {{error, closed}, none}
    end.

await_answer(Alias, ProxyMonitor, CallerMonitor) ->
    receive
        {tokamak, Alias, Answer} -> Answer;
        {'DOWN', ProxyMonitor, process, _Proxy, Reason} -> lost(Reason);
        {'DOWN', CallerMonitor, process, _Caller, _Reason} -> {error, closed}
    end.

lost(noconnection) -> {error, nodedown};
lost({undef, _} = Reason) -> {error, {no_tokamak, Reason}};
lost(Reason) -> {error, {proxy, Reason}}.

%% @private The proxy of a call.
-spec serve_call(pid(), reference(), tokamak:op(), [term()]) -> ok.
serve_call(Caller, Alias, Op, Args) ->
    end_with(Caller),
    case attempt(fun() -> tokamak:async(Op, Args) end) of
        {ok, Ref} ->
            receive
                {tokamak, Ref, End} -> answer(Alias, End)
            end;
        {error, _} = Error ->
            answer(Alias, Error)
    end.

answer(Alias, Answer) ->
    Alias ! {tokamak, Alias, Answer},
    ok.

%% Ends this process with the one it works for, whatever it waits for: its native call is cancelled then.
end_with(Caller) ->
    Proxy = self(),
    _ = spawn(fun() ->
        CallerMonitor = monitor(process, Caller),
        ProxyMonitor = monitor(process, Proxy),
        receive
            {'DOWN', CallerMonitor, process, Caller, _} -> exit(Proxy, kill);
            {'DOWN', ProxyMonitor, process, Proxy, _} -> ok
        end
    end),
    ok.

%% Wrong arguments are an error of the remote call's, not a crash of its proxy's.
attempt(Start) ->
    try
        {ok, Start()}
    catch
        error:badarg:Stacktrace ->
            Explained = tokamak_error:format_error(badarg, Stacktrace),
            Texts = lists:join("; ", maps:values(Explained)),
            {error, {badarg, lists:flatten(Texts)}}
    end.

%% Asynchronous calls: a helper process here waits for the remote call, so that its end, a lost node included, is one
%% message. It stands in a table until that message is sent, and is marked there before.

%% @private The supervisor owns the table of asynchronous calls.
-spec create_table() -> ok.
create_table() ->
    ?TABLE = ets:new(?TABLE, [named_table, public, {write_concurrency, true}]),
    ok.

%% @doc Makes the remote call of an asynchronous one, whose reference is given. `shutdown': the application does not
%% run.
-spec async(reference(), node(), tokamak:op(), [term()]) -> ok | {error, shutdown}.
async(Ref, Node, Op, Args) ->
    Caller = self(),
    Helper = spawn(fun() -> helper(Caller, Ref, Node, Op, Args) end),
    try ets:insert(?TABLE, {Ref, Helper, running}) andalso ets:member(?TABLE, closed) of
        false ->
            Helper ! go,
            ok;
        true ->
            %% Its end may have been sent already.
            _ = stop(Helper, Ref),
            {error, shutdown}
    catch
        error:badarg ->
            exit(Helper, kill),
            {error, shutdown}
    end.

%% @doc Ends all asynchronous calls, when the application stops: none is in the table when that goes. So who awaits one
%% finds its end, whenever that is.
-spec shut_down() -> ok.
shut_down() ->
    true = ets:insert(?TABLE, {closed, self()}),
    Helpers = [Helper || {_Ref, Helper, _Stage} <- ets:tab2list(?TABLE)],
    Monitors = [monitor(process, Helper) || Helper <- Helpers],
    _ = [Helper ! shutdown || Helper <- Helpers],
    lists:foreach(fun(Monitor) -> receive {'DOWN', Monitor, process, _, _} -> ok end end, Monitors).

%% It ends with its caller, and with the application, with which its table goes.
helper(Caller, Ref, Node, Op, Args) ->
    CallerMonitor = monitor(process, Caller),
    Application = monitor(process, tokamak_sup),
    receive
        go -> await_call(Caller, Ref, {CallerMonitor, Application}, start_call(Node, Op, Args));
        shutdown -> send_end(Caller, Ref, {error, shutdown});
        {'DOWN', CallerMonitor, process, Caller, _Reason} -> ok
    end,
    forget(Ref).

await_call(Caller, Ref, {CallerMonitor, Application}, {Alias, Worker, Monitor}) ->
    receive
        {tokamak, Alias, End} ->
            send_end(Caller, Ref, End);
        {'DOWN', Monitor, process, Worker, Reason} ->
            send_end(Caller, Ref, lost(Reason));
        shutdown ->
            send_end(Caller, Ref, {error, shutdown});
        %% It was killed.
        {'DOWN', Application, process, _, _Reason} ->
            send_end(Caller, Ref, {error, shutdown});
        {'DOWN', CallerMonitor, process, Caller, _Reason} ->
            ok
    end.

send_end(Caller, Ref, End) ->
    _ = mark_sending(Ref),
    Caller ! {tokamak, Ref, End},
    ok.

mark_sending(Ref) ->
    try
        ets:update_element(?TABLE, Ref, {3, sending})
    catch
        %% The application has stopped.
        error:badarg -> false
    end.

forget(Ref) ->
    try
        ets:delete(?TABLE, Ref)
    catch
        %% The application has stopped.
        error:badarg -> true
    end.

%% @doc The process that makes a call that has not ended.
-spec helper_of(reference()) -> {ok, pid()} | none.
helper_of(Ref) ->
    case look_up(Ref) of
        {Helper, _Stage} -> {ok, Helper};
        none -> none
    end.

%% @doc Where a call stands: the end of one that `ended' was sent.
-spec stage(reference()) -> running | sending | ended.
stage(Ref) ->
    case look_up(Ref) of
        {_Helper, Stage} -> Stage;
        none -> ended
    end.

look_up(Ref) ->
    try ets:lookup(?TABLE, Ref) of
        [{Ref, Helper, Stage}] -> {Helper, Stage};
        [] -> none
    catch
        error:badarg -> none
    end.

%% @doc Waits for the end of a call; after the time-out it is cancelled. The caller may have taken the end itself, while
%% the helper still stood in the table.
-spec await(pid(), reference(), timeout()) -> tokamak:result().
await(Helper, Ref, Timeout) ->
    Monitor = monitor(process, Helper),
    receive
        {tokamak, Ref, End} ->
            demonitor(Monitor, [flush]),
            End;
        {'DOWN', Monitor, process, Helper, _Reason} ->
            _ = forget(Ref),
            sent(Ref, {error, closed})
    after Timeout ->
        %% First: this process may be killed before it sees the helper dead.
        _ = forget(Ref),
        exit(Helper, kill),
        receive
            {'DOWN', Monitor, process, Helper, _Reason} -> sent(Ref, {error, timeout})
        end
    end.

%% Now that the helper is dead, what it sent is here.
sent(Ref, Otherwise) ->
    receive
        {tokamak, Ref, End} -> End
    after 0 -> Otherwise
    end.

%% @doc Cancels a call; nothing of it comes any more.
-spec stop(pid(), reference()) -> ok.
stop(Helper, Ref) ->
    _ = await(Helper, Ref, 0),
    ok.

%% Streams: a relay, a process on the consumer's node, asks the proxy, which answers with the items that are there,
%% one at least and a window at most. Whatever comes waits in the relay until the consumer wants it: each time it does,
%% it is told exactly one thing, also after a time-out. So nothing is left in its mailbox, and nothing is lost. What
%% was taken from the relay and not by the consumer yet is in the consumer's dictionary.

-record(relay, {
    owner :: pid(),
    owner_monitor :: reference(),
    proxy :: pid(),
    proxy_monitor :: reference(),
    alias :: reference(),
    %% What the consumer waits with.
    waiting = none :: none | reference(),
    %% Whether an answer of the proxy's is to come.
    asked = false :: boolean(),
    answers = [] :: [{items, [term(), ...]} | {'end', done | {error, term()}}]
}).

%% @doc Opens a stream on a node that answers in time.
-spec stream(node(), tokamak:op(), [term()], pos_integer(), timeout()) -> stream() | {error, term()}.
stream(Node, Op, Args, Window, Timeout) ->
    Owner = self(),
    Opening = alias([reply]),
    {Relay, Monitor} = spawn_monitor(fun() -> open_relay(Owner, Opening, Node, [Op, Args, Window]) end),
    Opened =
        receive
            {tokamak, Opening, Answer} -> Answer;
            {'DOWN', Monitor, process, Relay, Reason} -> last_word(Opening, lost(Reason))
        after Timeout ->
            last_word(Opening, {error, timeout})
        end,
    demonitor(Monitor, [flush]),
    opened(Opened, Relay).

opened(ok, Relay) ->
    put({?MODULE, Relay}, []),
    {tokamak_remote_stream, Relay, self()};
opened({error, _} = Error, Relay) ->
    exit(Relay, kill),
    Error.

%% @doc Whether a term is a remote stream.
-spec is_stream(term()) -> boolean().
is_stream({tokamak_remote_stream, Relay, Owner}) ->
    is_pid(Relay) andalso is_pid(Owner);
is_stream(_) ->
    false.

%% @doc Takes the next item, as {@link tokamak:next/2} does; `not_owner' in another process.
-spec next(stream(), timeout()) -> {ok, term()} | done | {error, term()} | not_owner.
next({tokamak_remote_stream, Relay, Owner}, Timeout) when Owner =:= self() ->
    case get({?MODULE, Relay}) of
        [Item | Rest] ->
            put({?MODULE, Relay}, Rest),
            {ok, Item};
        [] ->
            Ref = monitor(process, Relay),
            Relay ! {next, Ref},
            Answer = wait_answer(Relay, Ref, Timeout),
            demonitor(Ref, [flush]),
            take_answer(Relay, Answer);
        undefined ->
            {error, closed}
    end;
next(_Stream, _Timeout) ->
    not_owner.

%% The relay answers at once when it is to stop waiting.
wait_answer(Relay, Ref, Timeout) ->
    receive
        {tokamak, Ref, Answer} -> Answer;
        {'DOWN', Ref, process, Relay, Reason} -> {'end', lost(Reason)}
    after Timeout ->
        Relay ! {stop_waiting, Ref},
        wait_answer(Relay, Ref, infinity)
    end.

take_answer(Relay, {items, [Item | Rest]}) ->
    put({?MODULE, Relay}, Rest),
    {ok, Item};
take_answer(_Relay, waiting) ->
    {error, timeout};
take_answer(Relay, {'end', End}) ->
    _ = erase({?MODULE, Relay}),
    End.

%% @doc Ends a stream; `not_owner' in another process.
-spec close(stream()) -> ok | not_owner.
close({tokamak_remote_stream, Relay, Owner}) when Owner =:= self() ->
    exit(Relay, kill),
    _ = erase({?MODULE, Relay}),
    ok;
close(_Stream) ->
    not_owner.

open_relay(Owner, Opening, Node, OpArgsWindow) ->
    case ask_proxy(Owner, Node, serve_stream, OpArgsWindow) of
        {ok, {Proxy, ProxyMonitor, Alias, OwnerMonitor}} ->
            answer(Opening, ok),
            relay(#relay{
                owner = Owner,
                owner_monitor = OwnerMonitor,
                proxy = Proxy,
                proxy_monitor = ProxyMonitor,
                alias = Alias
            });
        {Error, _Proxy} ->
            answer(Opening, Error)
    end.

relay(#relay{alias = Alias, owner_monitor = OwnerMonitor, proxy_monitor = ProxyMonitor} = Relay) ->
    receive
        {next, Ref} ->
            serve_consumer(Relay#relay{waiting = Ref});
        {stop_waiting, Ref} when Ref =:= Relay#relay.waiting ->
            tell_consumer(waiting, Relay),
            relay(Relay#relay{waiting = none});
        {stop_waiting, _Answered} ->
            relay(Relay);
        ask_again ->
            ask(Relay),
            relay(Relay);
        {tokamak, Alias, Answer} ->
            serve_consumer(Relay#relay{answers = Relay#relay.answers ++ [Answer], asked = false});
        {'DOWN', ProxyMonitor, process, _Proxy, Reason} ->
            serve_consumer(Relay#relay{answers = Relay#relay.answers ++ [{'end', lost(Reason)}]});
        {'DOWN', OwnerMonitor, process, _Owner, _Reason} ->
            ok
    end.

serve_consumer(#relay{waiting = none} = Relay) ->
    relay(Relay);
serve_consumer(#relay{answers = [{'end', _} = End | _]} = Relay) ->
    tell_consumer(End, Relay);
serve_consumer(#relay{answers = [Items | Rest]} = Relay) ->
    tell_consumer(Items, Relay),
    relay(Relay#relay{waiting = none, answers = Rest});
serve_consumer(#relay{asked = false} = Relay) ->
    ask(Relay),
    relay(Relay#relay{asked = true});
serve_consumer(Relay) ->
    relay(Relay).

tell_consumer(Answer, #relay{owner = Owner, waiting = Ref}) ->
    Owner ! {tokamak, Ref, Answer},
    ok.

%% A plain send waits for a node that hangs, and the consumer with it. Where the node is lost, 'DOWN' tells.
ask(#relay{proxy = Proxy, alias = Alias}) ->
    case erlang:send(Proxy, {ask, Alias}, [nosuspend, noconnect]) of
        nosuspend ->
            _ = erlang:send_after(?ASK_AGAIN, self(), ask_again),
            ok;
        _ ->
            ok
    end.

%% @private The proxy of a stream.
-spec serve_stream(pid(), reference(), tokamak:op(), [term()], pos_integer()) -> ok.
serve_stream(Caller, Alias, Op, Args, Window) ->
    end_with(Caller),
    case attempt(fun() -> tokamak:stream(Op, Args, #{window => Window}) end) of
        {ok, {error, _} = Error} ->
            answer(Alias, Error);
        {ok, Stream} ->
            answer(Alias, ok),
            serve_items(Stream, Window);
        {error, _} = Error ->
            answer(Alias, Error)
    end.

serve_items(Stream, Window) ->
    receive
        {ask, Alias} ->
            case tokamak:next(Stream, infinity) of
                {ok, Item} -> serve_more(Stream, Window, Alias, Window - 1, [Item]);
                End -> answer(Alias, {'end', End})
            end
    end.

%% Adds the items that are there; an end that is found waits for the next question.
serve_more(Stream, Window, Alias, 0, Items) ->
    answer(Alias, {items, lists:reverse(Items)}),
    serve_items(Stream, Window);
serve_more(Stream, Window, Alias, Left, Items) ->
    case tokamak_stream:take(Stream) of
        {ok, Item} ->
            serve_more(Stream, Window, Alias, Left - 1, [Item | Items]);
        waiting ->
            serve_more(Stream, Window, Alias, 0, Items);
        End ->
            answer(Alias, {items, lists:reverse(Items)}),
            receive
                {ask, Next} -> answer(Next, {'end', End})
            end
    end.
